//! `wallet` and `vault`: words that are made once, a keystore that stays shut, payments that happen once.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use serde_json::Value;

use crate::network::{Network, eventually};
use crate::process::Sandbox;

/// The value behind a word at the beginning of a line.
fn value<'a>(text: &'a str, word: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(word));
    line.unwrap_or_else(|| panic!("no `{word}` in {text}"))[word.len()..].trim()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

#[test]
fn a_wallet_is_made_once_and_its_words_bring_it_back() {
    let sandbox = Sandbox::new();
    let error = sandbox.run(&["wallet", "show"]).failure(1);
    assert!(error.contains("hint: `cocoon-node wallet create` makes one"), "{error}");
    let made = sandbox.run(&["wallet", "create"]).success();
    assert_eq!(value(&made, "network"), "devnet");
    assert_eq!(value(&made, "words").split(' ').count(), 24);
    assert!(value(&made, "to fund").starts_with("0Q"), "{made}");
    assert!(value(&made, "bounceable").starts_with("kQ"), "{made}");
    // Shown without the words unless they are asked for.
    let shown = sandbox.run(&["wallet", "show"]).success();
    assert_eq!(value(&shown, "wallet"), value(&made, "wallet"));
    assert!(!shown.contains("words"));
    let shown = sandbox.run(&["wallet", "show", "--words"]).success();
    assert_eq!(shown, made);
    // Never replaced.
    let error = sandbox.run(&["wallet", "create"]).failure(1);
    assert!(error.contains("there is a wallet for this network already"), "{error}");
    // Nowhere in clear.
    let words = value(&made, "words").as_bytes();
    for file in std::fs::read_dir(sandbox.data_dir()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(words.len()).any(|window| window == words));
    }

    let other = Sandbox::new();
    other.write("words.txt", &value(&made, "words").replace(' ', "\n").to_uppercase());
    let restored = other.run(&["wallet", "import", "words.txt"]).success();
    assert_eq!(value(&restored, "wallet"), value(&made, "wallet"));
    assert!(!restored.contains("words"));

    let piped = Sandbox::new();
    let mut import = piped
        .command(&["wallet", "import"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    import.stdin.take().unwrap().write_all(words).unwrap();
    let output = import.wait_with_output().unwrap();
    assert_eq!(value(&String::from_utf8(output.stdout).unwrap(), "wallet"), value(&made, "wallet"));
}

#[test]
fn words_that_are_wrong_are_refused_without_being_repeated() {
    let sandbox = Sandbox::new();
    sandbox.write("words.txt", "correct horse battery staple");
    let error = sandbox.run(&["wallet", "import", "words.txt"]).failure(3);
    assert!(error.contains("24 words") && !error.contains("horse"), "{error}");
    sandbox.write("words.txt", &format!("{} qwerty", "abandon ".repeat(23)));
    let error = sandbox.run(&["wallet", "import", "words.txt"]).failure(3);
    assert!(error.contains("word 24 ") && !error.contains("qwerty"), "{error}");
    assert!(!sandbox.path("home").exists());
}

#[test]
fn words_are_not_read_under_a_running_node() {
    let sandbox = Sandbox::new();
    sandbox.run(&["wallet", "create"]).success();
    let _node = sandbox.start(&[]);
    sandbox.run(&["wallet", "show", "--words"]).failure(5);
    sandbox.run(&["wallet", "create"]).failure(5);
    sandbox.run(&["wallet", "protect", "nothing"]).failure(5);
}

#[test]
fn a_keystore_with_a_passphrase_opens_for_nobody_else() {
    let sandbox = Sandbox::new();
    let made = sandbox.run(&["wallet", "create"]).success();
    let secret = |name: &str, text: &str| {
        let path = sandbox.write(name, text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    secret("new", "open sesame\n");
    let protect = ["wallet", "protect", "passphrase", "--new-passphrase-file", "new"];
    let done = sandbox.run(&protect).success();
    assert_eq!(done, "the keystore is sealed with a passphrase\n");

    let error = sandbox.run(&["wallet", "show"]).failure(1);
    assert!(
        error.contains("needs its passphrase") && error.contains("COCOON_PASSPHRASE"),
        "{error}"
    );
    secret("wrong", "open barley\n");
    let error = sandbox.run(&["wallet", "show", "--passphrase-file", "wrong"]).failure(1);
    assert!(error.contains("the passphrase does not open the keystore"), "{error}");
    let shown = sandbox.run(&["wallet", "show", "--passphrase-file", "new"]).success();
    assert_eq!(value(&shown, "wallet"), value(&made, "wallet"));
    let output =
        sandbox.command(&["wallet", "show"]).env("COCOON_PASSPHRASE", "open sesame").output();
    assert!(output.unwrap().status.success());

    // Back to the key file, for which nobody is asked.
    sandbox.run(&["wallet", "protect", "key-file", "--passphrase-file", "new"]).success();
    sandbox.run(&["wallet", "show"]).success();
    let key = sandbox.path("home/.config/cocoon/keystore.key");
    std::fs::rename(&key, sandbox.path("elsewhere")).unwrap();
    sandbox.run(&["wallet", "show"]).failure(1);
    sandbox.run(&["wallet", "show", "--key-file", "elsewhere"]).success();
}

/// A wallet with coins in a data folder of its own, on the network's ledger.
fn funded(network: &Network, name: &'static str) -> String {
    let consumer = network.consume_unfunded(name, &[]);
    consumer.run(&["wallet", "fund", "5 TON"]).success();
    let shown = json(&consumer.run(&["wallet", "show", "--json"]).success());
    shown["address"].as_str().unwrap().to_owned()
}

#[test]
fn a_payment_is_made_once_however_often_its_command_dies() {
    let network = Network::start();
    let own = funded(&network, "payer");
    let base = ["--data-dir", "payer", "--ledger", network.ledger()];
    let run = |more: &[&str]| network.run(&[&base[..], more].concat());
    let to = format!("0:{}", "42".repeat(32));
    let send = ["wallet", "send", &to, "0.5 TON", "--comment", "for once", "--yes", "--json"];

    // Without a terminal and without --yes nothing is paid.
    let error = run(&["wallet", "send", &to, "0.5 TON"]);
    assert_eq!(error.code, Some(1), "{error:?}");
    assert!(error.stderr.contains("`--yes` pays without asking"), "{error:?}");
    // A typing error in the address.
    let error =
        run(&["wallet", "send", "UQDKbjIcfM6ezt8KjKJJLshZJJSqX7XOA4ff-W72r5gqPuwB", "1 TON"]);
    assert!(error.stderr.contains("checksum is wrong"), "{error:?}");

    // Killed at many moments: before it signs, before it sends, while it waits, before it tells.
    let balance = |account: &str| {
        let shown = json(&run(&["wallet", "balance", account, "--json"]).success());
        shown["balance_nano"].as_u64().unwrap()
    };
    let mut reported = 0;
    for (round, millis) in [30, 120, 200, 280, 400, 700].into_iter().enumerate() {
        let before = balance(&to);
        let mut killed = network.command(&[&base[..], &send].concat());
        let told = std::fs::File::create(network.path("told")).unwrap();
        let mut killed = killed.stdout(told).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(millis));
        let _ = killed.kill();
        killed.wait().unwrap();
        // Its user gives the command again unless it was told how it ended; and again, to see it
        // told once more, if it died between telling and forgetting.
        let told = std::fs::read_to_string(network.path("told")).unwrap();
        let told = told.contains("\"executed\"") && told.ends_with("}\n");
        if !told || network.path("payer/outbox-devnet.json").exists() {
            let payment = json(&run(&send).success());
            assert_eq!(payment["state"], "executed", "{payment}");
            assert!(!told || payment["asked_before"] == true, "{payment}");
        }
        reported += 1;
        // Less a nanoTON of rent now and then, which an account without a contract pays too.
        let gained = balance(&to) - before;
        let once = 499_999_000..=500_000_000;
        assert!(once.contains(&gained), "{gained} in round {round}, killed after {millis} ms");
    }
    let page = json(&run(&["wallet", "history", "--limit", "100", "--json"]).success());
    let lines = page["lines"].as_array().unwrap();
    let paid = lines.iter().flat_map(|line| line["sent"].as_array().unwrap());
    let paid: Vec<_> = paid.filter(|moved| moved["peer"] == to.as_str()).collect();
    assert_eq!(paid.len(), reported);
    assert!(paid.iter().all(|moved| moved["comment"] == "for once"), "{paid:?}");
    let faucet = lines.last().unwrap();
    assert_eq!(faucet["received"]["amount_nano"], 5_000_000_000_u64, "{faucet}");
    // The books: what came in, less what went out and every fee, is what is there.
    let fees: u64 = lines.iter().map(|line| line["fees_nano"].as_u64().unwrap()).sum();
    let sent = u64::try_from(reported).unwrap() * 500_000_000;
    assert_eq!(balance(&own), 5_000_000_000 - sent - fees);
    // In pages.
    let first = json(&run(&["wallet", "history", "--limit", "2", "--json"]).success());
    let place = first["lines"][1]["id"].as_str().unwrap();
    let second =
        json(&run(&["wallet", "history", "--limit", "1", "--before", place, "--json"]).success());
    assert_eq!(second["lines"][0], lines[2]);
}

#[test]
fn a_vault_is_opened_topped_up_and_its_free_part_goes_to_the_cold_owner_only() {
    let network = Network::start();
    funded(&network, "owner");
    let cold = format!("0:{}", "c0".repeat(32));
    let base = ["--data-dir", "owner", "--ledger", network.ledger(), "--owner", &cold];
    let run = |more: &[&str]| network.run(&[&base[..], more].concat());
    let vault = |text: &str| json(text);
    assert!(run(&["vault", "show"]).success().contains("not open yet"));
    run(&["vault", "open", "1 TON"]).success();
    run(&["vault", "top-up", "0.5 TON"]).success();
    let shown = vault(&run(&["vault", "show", "--json"]).success());
    assert_eq!(shown["owner"], cold.as_str());
    let held = shown["balance_nano"].as_u64().unwrap();
    assert!((1_490_000_000..=1_500_000_000).contains(&held), "{shown}");
    let listed = run(&["vault", "list"]).success();
    assert!(listed.contains("in use") && listed.contains(" TON"), "{listed}");
    // Other settings name another vault; this one is not forgotten.
    let plain = ["--data-dir", "owner", "--ledger", network.ledger()];
    let listed = network.run(&[&plain[..], &["vault", "list"]].concat()).success();
    assert!(listed.contains("earlier settings") && listed.contains("not open"), "{listed}");
    let address = shown["address"].as_str().unwrap();
    let withdraw = [&plain[..], &["vault", "withdraw", "0.25 TON", "--vault", address]].concat();
    network.run(&withdraw).success();
    let cold_balance = || {
        let shown = json(&run(&["wallet", "balance", &cold, "--json"]).success());
        shown["balance_nano"].as_u64().unwrap()
    };
    let first = eventually("the withdrawal", || Some(cold_balance()).filter(|it| *it > 0));
    assert!((249_000_000..=250_000_000).contains(&first), "{first}");
    // Nobody has a claim: everything comes back.
    run(&["vault", "withdraw"]).success();
    let all = eventually("the rest", || Some(cold_balance()).filter(|it| *it > first));
    assert!(all > held - 10_000_000, "{all} of {held}");
}
