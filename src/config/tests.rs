use clap::{CommandFactory, Parser};

use super::*;

/// The settings of a command line, whatever the environment of the test says.
fn serve(arguments: &[&str]) -> Result<Server, ConfigError> {
    let cli = Cli::try_parse_from(["graspd", "serve"].iter().chain(arguments)).unwrap();
    let Some(Command::Serve(args)) = cli.command else { panic!("serve") };
    Server::read(&args)
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn serve_is_the_command_when_none_is_named() {
    let cli = Cli::try_parse_from(["graspd", "--listen", "127.0.0.1:1", "--slots", "2"]).unwrap();
    assert!(cli.command.is_none());
    assert_eq!(Server::read(&cli.serve).unwrap().worker.slots_per_device, 2);
}

#[test]
fn everything_kept_lies_under_the_data_folder() {
    let server = serve(&["--data-dir", "/srv/graspd"]).unwrap();
    assert_eq!(server.database_url, "/srv/graspd/graspd.db");
    assert_eq!(server.machine.models_dir, Path::new("/srv/graspd/models"));
    assert_eq!(server.machine.datasets_dir, Path::new("/srv/graspd/datasets"));
    assert_eq!(server.worker.work_dir, Path::new("/srv/graspd/work"));
    assert!(serve(&["--data-dir", "here"]).unwrap().machine.data_dir.is_absolute());
}

#[test]
fn devices_are_a_list() {
    let server = serve(&["--devices", "cuda:0, cuda:1,cpu"]).unwrap();
    assert_eq!(server.worker.devices, ["cuda:0", "cuda:1", "cpu"]);
}

#[test]
fn a_bad_value_is_named_by_flag_and_variable() {
    for (flag, variable, value) in [
        ("--listen", "GRASPD_LISTEN", "8080"),
        ("--listen", "GRASPD_LISTEN", "localhost:http"),
        ("--devices", "GRASPD_DEVICES", "gpu"),
        ("--devices", "GRASPD_DEVICES", "cpu,"),
        ("--devices", "GRASPD_DEVICES", "cpu,cpu"),
        ("--slots", "GRASPD_SLOTS", "0"),
        ("--slots", "GRASPD_SLOTS", "many"),
        ("--log", "GRASPD_LOG", "xml"),
        ("--log-level", "GRASPD_LOG_LEVEL", "graspd=loud"),
        ("--hf-endpoint", "HF_ENDPOINT", "huggingface.co"),
        ("--hf-hub-offline", "HF_HUB_OFFLINE", "perhaps"),
        ("--database-url", "GRASPD_DATABASE_URL", "mysql://name:secret@host/x"),
    ] {
        let complaint = serve(&[&format!("{flag}={value}")]).err().unwrap().to_string();
        assert!(complaint.contains(flag) && complaint.contains(variable), "{complaint}");
        assert!(!complaint.contains("secret"), "{complaint}");
    }
}

#[test]
fn a_child_is_told_the_token_but_not_the_database() {
    let server = serve(&["--hf-token", "hf_x", "--database-url", "sqlite:/x.db"]).unwrap();
    let environment = &server.worker.environment.0;
    assert!(environment.contains(&("HF_TOKEN".into(), Some("hf_x".into()))));
    assert!(environment.contains(&("GRASPD_DATABASE_URL".into(), None)));
    let shown = format!("{:?} {:?}", server.machine, server.worker);
    assert!(!shown.contains("hf_x"), "a token must not reach a log");
}

#[test]
fn a_token_file_is_read_where_other_tools_keep_it() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
    assert_eq!(token(None, home.path()).as_deref(), Some("hf_file"));
    assert_eq!(token(Some(""), home.path()).as_deref(), Some("hf_file"));
    assert_eq!(token(Some("hf_given"), home.path()).as_deref(), Some("hf_given"));
}
