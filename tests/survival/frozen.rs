//! Servers that stand still, and come back.

use std::{fs, process::Child};

use rustix::process::{Pid, Signal, kill_process};

/// A server that does nothing, and its children.
pub(crate) struct Frozen {
    server: Child,
    stopped: Vec<Pid>,
}

impl Frozen {
    pub(crate) fn new(server: Child, stopped: Vec<Pid>) -> Self {
        Self { server, stopped }
    }

    pub(crate) fn thaw(&self) {
        for pid in &self.stopped {
            kill_process(*pid, Signal::CONT).unwrap();
        }
    }

    pub(crate) fn children(&self) -> usize {
        children_of(Pid::from_child(&self.server)).len()
    }

    /// Asks it to stop, as a service manager does.
    pub(crate) fn terminate(mut self) {
        kill_process(Pid::from_child(&self.server), Signal::TERM).unwrap();
        assert!(self.server.wait().unwrap().success());
    }
}

/// The processes that another one started.
pub(crate) fn children_of(parent_process: Pid) -> Vec<Pid> {
    let server = parent_process.as_raw_nonzero().to_string();
    let parent = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything; the state and the parent follow it.
        Some(stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.to_owned())
    };
    let names = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let children = names.filter(|pid| pid.parse::<u32>().is_ok() && parent(pid).as_ref() == Some(&server));
    children.filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}
