//! Every setting, from every source, against every other source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;

use super::*;

const HASHED_MODEL: &str =
    "blake3:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Three legal values for every setting, each in the form that a flag has.
const EXAMPLES: &[(&str, [&str; 3])] = &[
    ("data_dir", ["/a", "/b", "/c"]),
    ("provide", ["true", "false", "true"]),
    ("consume", ["true", "false", "true"]),
    ("network", ["testnet", "mainnet", "devnet"]),
    ("shutdown_grace", ["1 s", "2 s", "3 min"]),
    ("passphrase_file", ["/a", "/b", "/c"]),
    ("key_file", ["/a.key", "/b.key", "/c.key"]),
    ("clear_keystore", ["true", "false", "true"]),
    ("passphrase", ["one", "two", "three"]),
    ("listen", ["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2", "/ip4/127.0.0.1/udp/3/quic-v1"]),
    ("entry_points", ["/dns/a.example/tcp/1", "/dns/b.example/tcp/2", "/ip6/::1/tcp/3"]),
    ("region", ["eu", "us", "asia-1"]),
    ("gateway_listen", ["127.0.0.1:1", "127.0.0.1:2", "[::1]:3"]),
    ("api_key", ["one", "two", "three"]),
    ("minimum_tier", ["open", "confidential", "attested"]),
    ("policy", ["/a.toml", "/b.toml", "/c.toml"]),
    ("api_keys", ["/a.toml", "/b.toml", "/c.toml"]),
    ("max_spend", ["1 TON", "2 TON", "3 TON"]),
    ("max_price", ["0.1 TON", "0.2 TON", "0.3 TON"]),
    ("price_minimum", ["0.01 TON", "0.02 TON", "0.03 TON"]),
    ("price_maximum", ["1 TON", "2 TON", "3 TON"]),
    ("max_cost", ["0.1 TON", "0.2 TON", "0.3 TON"]),
    ("vault_deposit", ["1 TON", "2 TON", "3 TON"]),
    ("allocation", ["0.2 TON", "0.3 TON", "0.4 TON"]),
    (
        "owner",
        [
            "UQDKbjIcfM6ezt8KjKJJLshZJJSqX7XOA4ff-W72r5gqPuwA",
            "UQDdSgbhTq7a1cwJTZTm3kpjKcrlqGN9iAXoKRk3TfHgRpco",
            "0QDKbjIcfM6ezt8KjKJJLshZJJSqX7XOA4ff-W72r5gqPleK",
        ],
    ),
    ("daily_cap", ["1 TON", "2 TON", "3 TON"]),
    ("idle_release", ["1 h", "2 h", "90 s"]),
    ("release_delay", ["1 h", "2 h", "90 s"]),
    ("model", ["a", "b", HASHED_MODEL]),
    ("model_name", ["a", "b", "org/c"]),
    ("engine", ["echo", "llama", "echo"]),
    ("engine_threads", ["1", "2", "3"]),
    ("engine_slots", ["1", "2", "3"]),
    ("context_tokens", ["1024", "2048", "8192"]),
    ("prompt_price", ["0.1 TON", "0.2 TON", "0.3 TON"]),
    ("completion_price", ["0.1 TON", "0.2 TON", "0.3 TON"]),
    ("attester", ["open", "tdx", "snp"]),
    ("gpu_attester", ["nvidia", "none", "auto"]),
    ("simulated_gpus", ["1", "2", "3"]),
    ("intel_pcs", ["http://a.example", "https://b.example/pccs", "https://c.example:8081"]),
    ("amd_kds", ["http://a.example", "https://b.example/kds", "https://c.example:8081"]),
    ("endorsements", ["/a.json", "/b.json", "/c.json"]),
    ("consumer_policy", ["/a.toml", "/b.toml", "/c.toml"]),
    ("settle_threshold", ["0.2 TON", "0.3 TON", "0.4 TON"]),
    ("voucher_export", ["/a.json", "/b.json", "/c.json"]),
    ("echo_delay", ["1 ms", "2 ms", "3 ms"]),
    ("ledger", ["http://127.0.0.1:1", "https://ledger.example/api", "liteservers"]),
    ("ton_config", ["/a.json", "/b.json", "/c.json"]),
    (
        "liteservers",
        [
            "192.0.2.1:1:sU7QavX2F964iI9oToP9gffQpCQIoOLppeqL/pdPvpM=",
            "192.0.2.2:2:Y/QVf6G5VDiKTZOKitbFVm067WsuocTN8Vg036A4zGk=",
            "[2001:db8::1]:3:Sy5ghr3EahQd/1rDayzZXt5+inlfF+7kLfkZDJcU/ek=",
        ],
    ),
    ("liteserver_quorum", ["1", "2", "3"]),
    ("accept_unverified_ledger", ["true", "false", "true"]),
    (
        "registry",
        [
            "UQDKbjIcfM6ezt8KjKJJLshZJJSqX7XOA4ff-W72r5gqPuwA",
            "UQDdSgbhTq7a1cwJTZTm3kpjKcrlqGN9iAXoKRk3TfHgRpco",
            "0QDKbjIcfM6ezt8KjKJJLshZJJSqX7XOA4ff-W72r5gqPleK",
        ],
    ),
    ("ledger_listen", ["127.0.0.1:1", "127.0.0.1:2", "0.0.0.0:3"]),
    ("ledger_liteserver_listen", ["127.0.0.1:1", "127.0.0.1:2", "0.0.0.0:3"]),
    ("log", ["warn", "debug", "info,cocoon_node=trace"]),
    ("log_format", ["json", "text", "json"]),
];

fn surroundings() -> Surroundings {
    Surroundings {
        data_home: Some("/srv/somebody/.local/share".into()),
        config_home: Some("/srv/somebody/.config".into()),
        threads: 8,
        network: Network::Devnet,
    }
}

/// The value as it stands in a file, by the setting's kind.
fn toml_line(row: &Setting, value: &str) -> String {
    match row.kind {
        Kind::Text | Kind::Path => format!("{} = '{value}'\n", row.key),
        Kind::Integer | Kind::Boolean => format!("{} = {value}\n", row.key),
        Kind::List => format!("{} = ['{value}']\n", row.key),
    }
}

fn write(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("cocoon.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// A configuration with these settings and no other.
pub(crate) fn config_with(settings: &[(&'static str, &str)]) -> Config {
    let flags = settings.iter().map(|(key, value)| (*key, Raw::One((*value).into()))).collect();
    load(&Layers { flags, ..Layers::default() }).config
}

fn load(layers: &Layers) -> Loaded {
    Loaded::unchecked(layers, &surroundings()).unwrap()
}

/// What a value looks like when it is shown, through the setting's own reader.
fn shown_alone(row: &'static Setting, value: &str) -> Shown {
    let flags = BTreeMap::from([(row.key, Raw::One(value.into()))]);
    let position = SETTINGS.iter().position(|other| other.key == row.key).unwrap();
    load(&Layers { flags, ..Layers::default() }).config.shown().swap_remove(position)
}

#[test]
fn there_are_examples_for_every_setting_and_names_are_distinct() {
    let examples: BTreeSet<_> = EXAMPLES.iter().map(|(key, _)| *key).collect();
    let keys: BTreeSet<_> = SETTINGS.iter().map(|row| row.key).collect();
    assert_eq!(examples, keys);
    let variables: BTreeSet<_> = SETTINGS.iter().map(Setting::variable).collect();
    assert_eq!(variables.len(), SETTINGS.len());
    assert_eq!(keys.len(), SETTINGS.len());
}

#[test]
fn every_setting_has_a_help_text_and_every_default_is_legal() {
    for row in SETTINGS {
        assert!(!row.lines[0].trim().is_empty(), "{}", row.key);
        assert!(row.lines[0].trim().ends_with(['.', '…']), "{}", row.key);
    }
    let loaded = Loaded::new(&Layers::default(), &surroundings()).unwrap();
    assert!(loaded.origins.iter().all(|origin| *origin == Origin::Default));
    assert_eq!(loaded.config.data_dir, Path::new("/srv/somebody/.local/share/cocoon"));
    assert_eq!(loaded.config.engine_threads.get(), 7);
    assert_eq!(loaded.config.release_delay, Millis::from_secs(60));
    assert_eq!(loaded.config.minimum_tier, Tier::Attested);
    assert!(loaded.config.gateway_listen.ip().is_loopback());
}

#[test]
fn for_every_setting_a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let folder = tempfile::tempdir().unwrap();
    for (key, [in_file, in_environment, in_flag]) in EXAMPLES {
        let row = setting(key).unwrap();
        let position = SETTINGS.iter().position(|other| other.key == *key).unwrap();
        let path = write(folder.path(), &toml_line(row, in_file));
        let environment = BTreeMap::from([(row.variable(), (*in_environment).to_owned())]);
        let flags = BTreeMap::from([(row.key, Raw::Many(vec![(*in_flag).to_owned()]))]);

        let only_file = Layers { file: Some(path.clone()), ..Layers::default() };
        let with_environment = Layers { environment, ..only_file.clone() };
        let with_flag = Layers { flags, ..with_environment.clone() };
        let steps = [
            (&only_file, in_file, Origin::File { path, line: 1 }),
            (&with_environment, in_environment, Origin::Environment { variable: row.variable() }),
            (&with_flag, in_flag, Origin::Flag { flag: format!("--{}", row.flag()) }),
        ];
        for (layers, value, origin) in steps {
            let loaded = load(layers);
            assert_eq!(loaded.origins[position], origin, "{key}");
            assert_eq!(loaded.config.shown()[position], shown_alone(row, value), "{key}");
            // A setting touches no other.
            let others = loaded.origins.iter().enumerate().filter(|(at, _)| *at != position);
            assert!(others.into_iter().all(|(_, origin)| *origin == Origin::Default), "{key}");
        }
    }
}

#[test]
fn every_setting_refuses_nonsense_and_says_where_it_came_from() {
    for row in SETTINGS {
        // Names, keys and paths may be nearly anything; a line break is in none of the rest.
        if row.secret || row.kind == Kind::Path {
            continue;
        }
        let flags = BTreeMap::from([(row.key, Raw::One("no such\nvalue".into()))]);
        let layers = Layers { flags, ..Layers::default() };
        let error = Loaded::unchecked(&layers, &surroundings()).unwrap_err();
        let ConfigError::BadValue { key, origin, .. } = error else { panic!("{error:?}") };
        assert_eq!((key, origin.to_string()), (row.key, format!("--{}", row.flag())));
    }
}

#[test]
fn rust_log_is_read_when_nothing_of_ours_is_set() {
    let environment = BTreeMap::from([("RUST_LOG".to_owned(), "trace".to_owned())]);
    let mut layers = Layers { environment, ..Layers::default() };
    assert_eq!(load(&layers).config.log.as_str(), "trace");
    layers.environment.insert("COCOON_LOG".into(), "warn".into());
    assert_eq!(load(&layers).config.log.as_str(), "warn");
}

#[test]
fn a_variable_that_is_nobodys_is_named_with_the_likely_one() {
    let names = ["COCOON_PROVIDE", "COCOON_PROVIDER", "COCOON_CONFIG", "COCOON_ZZZ", "HOME"];
    let environment = names.iter().map(|name| ((*name).to_owned(), String::new())).collect();
    let unknown = unknown_variables(&environment, &["COCOON_CONFIG"]);
    assert_eq!(
        unknown,
        [("COCOON_PROVIDER", Some("COCOON_PROVIDE".to_owned())), ("COCOON_ZZZ", None)]
    );
}

#[test]
fn without_a_home_the_data_folder_must_be_given() {
    let homeless = Surroundings { data_home: None, ..surroundings() };
    let error = Loaded::new(&Layers::default(), &homeless).unwrap_err();
    assert!(matches!(error, ConfigError::NoDefault { key: "data_dir" }), "{error:?}");
    assert_eq!(error.hint().as_deref(), Some("give it with `--data-dir`"));
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    let conflict = |flags: &[(&'static str, &str)]| {
        let flags = flags.iter().map(|(key, value)| (*key, Raw::One((*value).into()))).collect();
        let layers = Layers { flags, ..Layers::default() };
        match Loaded::new(&layers, &surroundings()) {
            Ok(_) => None,
            Err(ConfigError::Conflict(conflict)) => Some(conflict),
            Err(other) => panic!("{other:?}"),
        }
    };
    let open = [("consume", "true"), ("gateway_listen", "0.0.0.0:1")];
    assert_eq!(conflict(&open), Some(Conflict::OpenGateway));
    assert_eq!(conflict(&[open[0], open[1], ("api_key", "k")]), None);
    assert_eq!(conflict(&[("provide", "true")]), Some(Conflict::NoModel));
    assert_eq!(conflict(&[("provide", "true"), ("model", "m")]), None);
    assert_eq!(conflict(&[("provide", "true"), ("engine", "echo")]), None);
    assert_eq!(conflict(&[("allocation", "0.46 TON")]), Some(Conflict::AllocationAboveDeposit));
    assert_eq!(conflict(&[("allocation", "0.45 TON")]), None);
    let mainnet = ("network", "mainnet");
    let embedded = [mainnet, ("ledger", "embedded")];
    assert_eq!(conflict(&embedded), Some(Conflict::EmbeddedBeyondDevnet));
    assert_eq!(conflict(&[mainnet]), Some(Conflict::NoLiteservers));
    assert_eq!(conflict(&[mainnet, ("ton_config", "/global-config.json")]), None);
    let unused = [("ton_config", "/global-config.json")];
    assert_eq!(conflict(&unused), Some(Conflict::UnusedLiteservers));
    assert_eq!(conflict(&[unused[0], ("ledger", "liteservers")]), None);
    let remote = ("ledger", "https://ledger.example");
    assert_eq!(conflict(&[("network", "mainnet"), remote]), None);
    assert_eq!(
        conflict(&[remote, ("ledger_listen", "127.0.0.1:0")]),
        Some(Conflict::NothingToServe)
    );
    assert_eq!(
        conflict(&[remote, ("ledger_liteserver_listen", "127.0.0.1:0")]),
        Some(Conflict::NothingToServe)
    );
    assert_eq!(
        conflict(&[("consume", "true"), ("max_cost", "1 nanoTON")]),
        Some(Conflict::CannotPayOneStep)
    );
    let simulated = [("provide", "true"), ("engine", "echo"), ("attester", "simulated")];
    let built = cfg!(feature = "dev-tee");
    assert_eq!(conflict(&simulated), (!built).then_some(Conflict::SimulatedNotBuilt));
    let on_mainnet = [simulated[0], simulated[1], simulated[2], remote, ("network", "mainnet")];
    assert_eq!(conflict(&on_mainnet), Some(Conflict::SimulatedOnMainnet));
    let gpus = |attester| {
        [simulated[0], simulated[1], ("attester", attester), ("gpu_attester", "simulated")]
    };
    for attester in ["auto", "simulated-snp"] {
        let not_built = (!built).then_some(Conflict::SimulatedNotBuilt);
        assert_eq!(conflict(&gpus(attester)), not_built);
        let on_mainnet = [&gpus(attester)[..], &on_mainnet[3..]].concat();
        assert_eq!(conflict(&on_mainnet), Some(Conflict::SimulatedOnMainnet));
    }
    let by_name = [simulated[0], simulated[1], ("attester", "open"), ("gpu_attester", "nvidia")];
    assert_eq!(conflict(&by_name), Some(Conflict::GpusWithoutTee));
    assert_eq!(conflict(&[by_name[0], by_name[1], by_name[2], ("gpu_attester", "none")]), None);
}

#[test]
fn what_is_printed_loads_to_the_same_settings() {
    let folder = tempfile::tempdir().unwrap();
    for choice in 0..3 {
        let flags = EXAMPLES
            .iter()
            .filter(|(key, _)| !setting(key).unwrap().secret)
            .map(|(key, values)| (*key, Raw::One(values[choice].into())))
            .collect();
        let first = load(&Layers { flags, ..Layers::default() });
        let path = write(folder.path(), &print_toml(&first));
        let second = load(&Layers { file: Some(path), ..Layers::default() });
        assert_eq!(first.config, second.config);
    }
    let defaults = load(&Layers::default());
    let path = write(folder.path(), &print_toml(&defaults));
    assert_eq!(load(&Layers { file: Some(path), ..Layers::default() }).config, defaults.config);
}

#[test]
fn a_secret_is_in_no_output() {
    let flags = BTreeMap::from([("api_key", Raw::One("sk-very-secret".into()))]);
    let loaded = load(&Layers { flags, ..Layers::default() });
    let json = print_json(&loaded).to_string();
    let everything = format!("{}{json}{:?}", print_toml(&loaded), loaded.config);
    assert!(!everything.contains("very-secret"));
    assert!(print_toml(&loaded).contains("# api_key is set and not shown  # --api-key"));
    assert_eq!(print_json(&loaded)["api_key"]["source"], "flag");
}

proptest! {
    #[test]
    fn any_text_survives_being_printed_and_loaded(path in "[^\\p{Cc}]{1,60}") {
        // Paths are the freest of texts. Trimmed ones only: readers trim.
        prop_assume!(path.trim() == path);
        let path = format!("/{path}");
        let flags = BTreeMap::from([("policy", Raw::One(path.clone()))]);
        let first = load(&Layers { flags, ..Layers::default() });
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), &print_toml(&first));
        let second = load(&Layers { file: Some(file), ..Layers::default() });
        prop_assert_eq!(second.config.policy, Some(PathBuf::from(path)));
    }
}
