//! The command line as a user and a script meet it: help, errors, exit codes, streams.

use crate::process::Sandbox;

#[test]
fn the_help_is_as_reviewed() {
    let sandbox = Sandbox::new();
    let cases: [(&[&str], &str, &str); 13] = [
        (&["-h"], include_str!("help/node.txt"), "node.txt"),
        (&["config", "print", "-h"], include_str!("help/config_print.txt"), "config_print.txt"),
        (&["wallet", "-h"], include_str!("help/wallet.txt"), "wallet.txt"),
        (&["wallet", "send", "-h"], include_str!("help/wallet_send.txt"), "wallet_send.txt"),
        (&["vault", "-h"], include_str!("help/vault.txt"), "vault.txt"),
        (&["registry", "-h"], include_str!("help/registry.txt"), "registry.txt"),
        (&["tee", "policy", "-h"], include_str!("help/tee_policy.txt"), "tee_policy.txt"),
        (&["models", "-h"], include_str!("help/models.txt"), "models.txt"),
        (&["tee", "measure", "snp", "-h"], include_str!("help/measure_snp.txt"), "measure_snp.txt"),
        (&["tee", "measure", "tdx", "-h"], include_str!("help/measure_tdx.txt"), "measure_tdx.txt"),
        (&["receipt", "-h"], include_str!("help/receipt.txt"), "receipt.txt"),
        (&["receipt", "verify", "-h"], include_str!("help/verify.txt"), "verify.txt"),
        (&["channel", "-h"], include_str!("help/channel.txt"), "channel.txt"),
    ];
    let update = std::env::var_os("UPDATE_HELP").is_some();
    for (arguments, reviewed, file) in cases {
        let printed = sandbox.run(arguments).success();
        if update {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/help/");
            std::fs::write(format!("{path}{file}"), printed).unwrap();
        } else {
            assert_eq!(printed, reviewed, "{file}: if it is right, run with UPDATE_HELP=1");
        }
    }
}

#[test]
fn the_long_help_names_every_settings_variable_and_key() {
    let sandbox = Sandbox::new();
    let help = sandbox.run(&["--help"]).success();
    for row in cocoon_node::config::SETTINGS.iter().filter(|row| !row.hidden) {
        assert!(help.contains(&format!("[env: {}]", row.variable())), "{}", row.key);
        assert!(help.contains(&format!("[file: {}]", row.key)), "{}", row.key);
    }
    assert!(!help.contains("echo-delay"));
}

#[test]
fn errors_go_to_standard_error_with_a_hint_and_a_code_of_their_own() {
    let sandbox = Sandbox::new();
    // clap's own.
    let error = sandbox.run(&["--no-such-flag"]).failure(2);
    assert!(error.contains("--no-such-flag"), "{error}");
    // A value.
    let error = sandbox.run(&["config", "print", "--max-cost", "5"]).failure(2);
    assert!(error.starts_with("error: the setting `max_cost` (--max-cost) has no legal value\n"));
    assert!(error.contains("  caused by: not an amount\n  caused by: an amount needs a unit"));
    assert!(error.contains("\n\nhint: the default is `0.05 TON`"), "{error}");
    // A key in a file.
    sandbox.write("cocoon.toml", "consume = true\ngateway_listn = '127.0.0.1:1'\n");
    let error = sandbox.run(&["config", "print", "--config", "cocoon.toml"]).failure(2);
    assert!(error.contains("line 2: `gateway_listn` is not a setting"), "{error}");
    assert!(error.contains("hint: did you mean `gateway_listen`?"), "{error}");
    // Settings against one another.
    let error = sandbox.run(&["--provide"]).failure(2);
    assert!(error.contains("`provide` is on and `model` is not set"), "{error}");
    // No node.
    for command in [&["status"][..], &["channel", "list"], &["wallet", "fund"], &["stop"]] {
        let error = sandbox.run(command).failure(4);
        assert!(error.starts_with("error: no node is running on this data folder\n"), "{error}");
    }
    // None of these made the data folder.
    assert!(!sandbox.path("home").exists());
}

#[test]
fn settings_come_from_file_environment_and_flags_in_the_real_program() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("cocoon.toml", "engine_slots = 3\nregion = 'eu'\npolicy = 'p.toml'\n");
    let printed = sandbox
        .command(&["--engine-slots", "5", "config", "print", "--json"])
        .env("COCOON_CONFIG", &file)
        .env("COCOON_REGION", "us")
        .env("COCOON_API_KEY", "sk-secret")
        .env("RUST_LOG", "debug")
        .output()
        .unwrap();
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(!text.contains("sk-secret"));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let value_and_source = |key: &str| {
        let entry = &json[key];
        (entry["value"].as_str().map(str::to_owned), entry["from"].as_str().unwrap().to_owned())
    };
    assert_eq!(json["engine_slots"]["value"], 5);
    assert_eq!(json["engine_slots"]["source"], "flag");
    assert_eq!(value_and_source("region"), (Some("us".into()), "$COCOON_REGION".into()));
    assert_eq!(value_and_source("log"), (Some("debug".into()), "$RUST_LOG".into()));
    assert_eq!(value_and_source("api_key").0.as_deref(), Some("(redacted)"));
    let policy = sandbox.folder().canonicalize().unwrap().join("p.toml");
    let printed_policy = value_and_source("policy").0.unwrap();
    assert_eq!(std::path::Path::new(&printed_policy).file_name(), policy.file_name());
    assert!(std::path::Path::new(&printed_policy).is_absolute());
    assert_eq!(value_and_source("network"), (Some("devnet".into()), "default".into()));
}

#[test]
fn a_misspelt_variable_is_pointed_out() {
    let sandbox = Sandbox::new();
    let output =
        sandbox.command(&["config", "print"]).env("COCOON_CONSUMER", "true").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "warning: `COCOON_CONSUMER` is not a setting; did you mean `COCOON_CONSUME`?\n"
    );
}

#[test]
fn every_shell_gets_a_completion_script_with_the_settings() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = sandbox.run(&["completions", shell]).success();
        for word in ["entry-points", "receipt", "completions"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    sandbox.run(&["completions", "tcsh"]).failure(2);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let sandbox = Sandbox::new();
    let mut child = sandbox
        .command(&["completions", "zsh"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
