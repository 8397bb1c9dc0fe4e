//! `wallet`: words that are made once, shown when asked for, and never replaced.

use crate::process::Sandbox;

/// The value behind a word at the beginning of a line.
fn value<'a>(text: &'a str, word: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(word));
    line.unwrap_or_else(|| panic!("no `{word}` in {text}"))[word.len()..].trim()
}

#[test]
fn a_wallet_is_made_once_and_its_words_bring_it_back() {
    let sandbox = Sandbox::new();
    let error = sandbox.run(&["wallet", "show"]).failure(1);
    assert!(error.contains("hint: `cocoon-node wallet new` makes one"), "{error}");
    let made = sandbox.run(&["wallet", "new"]).success();
    assert_eq!(value(&made, "network"), "devnet");
    assert_eq!(value(&made, "words").split(' ').count(), 24);
    // Shown without the words unless they are asked for.
    let shown = sandbox.run(&["wallet", "show"]).success();
    assert_eq!(value(&shown, "wallet"), value(&made, "wallet"));
    assert!(!shown.contains("words"));
    let shown = sandbox.run(&["wallet", "show", "--words"]).success();
    assert_eq!(shown, made);
    // Never replaced.
    let error = sandbox.run(&["wallet", "new"]).failure(1);
    assert!(error.contains("there is a wallet for this network already"), "{error}");

    let other = Sandbox::new();
    other.write("words.txt", &value(&made, "words").replace(' ', "\n").to_uppercase());
    let restored = other.run(&["wallet", "new", "--words", "words.txt"]).success();
    assert_eq!(value(&restored, "wallet"), value(&made, "wallet"));
    assert!(!restored.contains("words"));
}

#[test]
fn words_that_are_wrong_are_refused_without_being_repeated() {
    let sandbox = Sandbox::new();
    sandbox.write("words.txt", "correct horse battery staple");
    let error = sandbox.run(&["wallet", "new", "--words", "words.txt"]).failure(3);
    assert!(error.contains("24 words") && !error.contains("horse"), "{error}");
    assert!(!sandbox.path("home").exists());
}

#[test]
fn words_are_not_read_under_a_running_node() {
    let sandbox = Sandbox::new();
    sandbox.run(&["wallet", "new"]).success();
    let _node = sandbox.start(&[]);
    sandbox.run(&["wallet", "show", "--words"]).failure(5);
    sandbox.run(&["wallet", "new"]).failure(5);
}
