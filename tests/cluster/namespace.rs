//! A network namespace with a cable to this machine: the kernel's own picture of a machine elsewhere.

use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

static MADE: AtomicU32 = AtomicU32::new(0);

/// A namespace; it is gone with this value.
pub(crate) struct Namespace {
    name: String,
    /// This machine's end of the cable.
    cable: String,
    /// This machine's address on it.
    pub(crate) host: String,
}

impl Namespace {
    /// `None`, and a loud reason, where this machine does not let us make one.
    pub(crate) fn new() -> Option<Self> {
        let (process, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let net = format!("10.{}.{}", 100 + process % 100, process / 100 % 25 * 10 + number % 10);
        let made = Self {
            name: format!("graspd-{process}-{number}"),
            cable: format!("gr{process}n{number}"),
            host: format!("{net}.1"),
        };
        let Self { name, cable, host } = &made;
        let steps = [
            format!("netns add {name}"),
            format!("link add {cable} type veth peer name away netns {name}"),
            format!("addr add {host}/30 dev {cable}"),
            format!("link set {cable} up"),
            format!("-n {name} addr add {net}.2/30 dev away"),
            format!("-n {name} link set away up"),
            format!("-n {name} link set lo up"),
        ];
        for step in steps {
            if let Err(reason) = ip(&step) {
                let skipped = format!(
                    "!!! SKIPPED: no network namespace can be made here (ip {step}: {reason}), so that every worker \
                     shares this machine's network\n"
                );
                // Not by a macro, whose output is only shown when the test fails.
                let _ = std::io::Write::write_all(&mut std::io::stderr(), skipped.as_bytes());
                return None;
            }
        }
        Some(made)
    }

    /// What starts a program inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        command
    }

    /// Pulls the cable, or plugs it in again.
    pub(crate) fn plug(&self, plugged: bool) {
        ip(&format!("link set {} {}", self.cable, if plugged { "up" } else { "down" })).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Whatever of it was made.
        let _ = ip(&format!("link del {}", self.cable));
        let _ = ip(&format!("netns del {}", self.name));
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}
