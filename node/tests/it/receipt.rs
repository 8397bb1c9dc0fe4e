//! `receipt verify`: without a node, without a network, and without mercy.

use cocoon_node::control::ReceiptFile;
use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{JobId, ModelHash, NodeKey, TonAddress};
use cocoon_protocol::job::{FinishReason, Prompt, Role, Turn, Usage};
use cocoon_protocol::receipt::{Receipt, Salt, SignedReceipt, commitment, prompt_commitment};
use cocoon_protocol::units::{NanoTon, PricePerMillion, Prices, Timestamp, Tokens};

use crate::process::Sandbox;

const SALT: [u8; 32] = [9; 32];

fn signed() -> SignedReceipt {
    let key = NodeKey::from_secret(&[7; 32]);
    let salt = Salt::from_bytes(SALT);
    let turns = [(Role::System, "Be brief."), (Role::User, "What is a cocoon?")];
    let turns = turns.map(|(role, content)| Turn { role, content: content.into() });
    let prices = Prices {
        prompt: PricePerMillion::from_nano(20_000_000),
        completion: PricePerMillion::from_nano(60_000_000),
    };
    let usage = Usage { prompt: Tokens::new(21), completion: Tokens::new(40) };
    let receipt = Receipt {
        job: JobId::from_bytes([1; 32]),
        provider: key.id(),
        vault: TonAddress { workchain: 0, hash: [2; 32] },
        epoch: 1,
        model: ModelHash::from_bytes([3; 32]),
        tier: Tier::Attested,
        evidence_digest: [4; 32],
        prompt_commitment: prompt_commitment(&salt, &Prompt::Chat(turns.to_vec())),
        completion_commitment: commitment(&salt, b"A silk case.\n"),
        sampling_digest: [5; 32],
        usage,
        prices,
        price: prices.cost(usage.prompt, usage.completion).unwrap(),
        fee: NanoTon::ZERO,
        started: Timestamp::from_unix_secs(1_795_351_208),
        ended: Timestamp::from_unix_secs(1_795_351_210),
        finish: FinishReason::Stop,
    };
    receipt.sign(&key)
}

fn write_json(sandbox: &Sandbox, name: &str, signed: &SignedReceipt, salt: Option<[u8; 32]>) {
    let file = ReceiptFile {
        receipt: signed.hash(),
        signed: hex::encode(signed.encode()),
        salt: salt.map(hex::encode),
        provided: None,
    };
    sandbox.write(name, &serde_json::to_string(&file).unwrap());
}

#[test]
fn a_receipt_is_verified_from_either_form() {
    let sandbox = Sandbox::new();
    write_json(&sandbox, "receipt.json", &signed(), None);
    std::fs::write(sandbox.path("receipt.bin"), signed().encode()).unwrap();
    let from_json = sandbox.run(&["receipt", "verify", "receipt.json"]).success();
    assert!(from_json.starts_with("receipt: valid\n"), "{from_json}");
    for fact in [
        "tier        attested",
        "usage       21 prompt tokens, 40 completion tokens",
        "price       0.00000282 TON (network fee 0 TON)",
        "time        2026-11-22T12:40:08Z to 2026-11-22T12:40:10Z",
        "prompt      not given",
    ] {
        assert!(from_json.contains(fact), "{fact} in {from_json}");
    }
    assert_eq!(sandbox.run(&["receipt", "verify", "receipt.bin"]).success(), from_json);
}

#[test]
fn every_changed_byte_makes_it_invalid_and_the_reason_is_named() {
    let sandbox = Sandbox::new();
    let bytes = signed().encode();
    // One byte of every kind of field, and of the signature; all of them in the protocol's tests.
    for at in [0, 4, 40, 120, 200, 300, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        std::fs::write(sandbox.path("receipt.bin"), changed).unwrap();
        let error = sandbox.run(&["receipt", "verify", "receipt.bin"]).failure(3);
        assert!(error.starts_with("error: receipt: NOT valid\n  caused by: "), "{at}: {error}");
    }
    for bytes in [&bytes[..bytes.len() - 1], b"", b"{}"] {
        std::fs::write(sandbox.path("receipt.bin"), bytes).unwrap();
        let error = sandbox.run(&["receipt", "verify", "receipt.bin"]).failure(3);
        assert!(error.starts_with("error: receipt.bin is not a receipt\n"), "{error}");
    }
}

#[test]
fn texts_are_checked_against_the_commitments() {
    let sandbox = Sandbox::new();
    write_json(&sandbox, "salted.json", &signed(), Some(SALT));
    write_json(&sandbox, "bare.json", &signed(), None);
    let messages = r#"[{"role": "system", "content": "Be brief."},
                       {"role": "user", "content": "What is a cocoon?"}]"#;
    sandbox.write("messages.json", messages);
    sandbox.write("request.json", &format!(r#"{{"model": "m", "messages": {messages}}}"#));
    sandbox.write("other.json", &messages.replace("cocoon", "raccoon"));
    sandbox.write("answer.txt", "A silk case.\n");
    sandbox.write("other.txt", "A silk case.");
    let verify = |file: &str, prompt: &str, completion: &str, more: &[&str]| {
        let texts = ["--prompt-file", prompt, "--completion-file", completion];
        sandbox.run(&[&["receipt", "verify", file], &texts[..], more].concat())
    };
    for prompt in ["messages.json", "request.json"] {
        let printed = verify("salted.json", prompt, "answer.txt", &[]).success();
        assert!(printed.ends_with("prompt      matches\ncompletion  matches\n"), "{printed}");
    }
    let digits = hex::encode(SALT);
    verify("bare.json", "messages.json", "answer.txt", &["--salt", &digits]).success();

    let wrong_salt = hex::encode([8; 32]);
    let cases = [
        (verify("salted.json", "other.json", "answer.txt", &[]), "the prompt is not the one"),
        (verify("salted.json", "messages.json", "other.txt", &[]), "the completion is not the one"),
        (
            verify("salted.json", "messages.json", "answer.txt", &["--salt", &wrong_salt]),
            "check the salt too",
        ),
    ];
    for (outcome, reason) in cases {
        let error = outcome.failure(3);
        assert!(error.contains(reason), "{error}");
        // A text is never repeated.
        assert!(!error.contains("silk") && !error.contains("raccoon"), "{error}");
    }
    let error = verify("bare.json", "messages.json", "answer.txt", &[]).failure(2);
    assert!(error.contains("hint: give `--salt`"), "{error}");
    let error = verify("bare.json", "messages.json", "answer.txt", &["--salt", "12"]).failure(2);
    assert!(error.contains("not 64 hexadecimal digits"), "{error}");
}
