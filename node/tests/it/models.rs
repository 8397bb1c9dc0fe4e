//! `models`: making a file known, by name and by hash, while a node runs or not.

use crate::process::Sandbox;

/// The smallest header that is a GGUF file: version 3, no tensors, no entries.
fn model_file() -> Vec<u8> {
    [b"GGUF".as_slice(), &3u32.to_le_bytes(), &[0; 16]].concat()
}

#[test]
fn a_model_is_added_listed_and_removed_and_its_file_stays() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("Tiny-Model.Q4_1.gguf");
    std::fs::write(&file, model_file()).unwrap();
    let hash = blake3::hash(&model_file()).to_hex();

    assert_eq!(sandbox.run(&["models", "list"]).success(), "models: none\n");
    assert!(!sandbox.path("home").exists());
    let added = sandbox.run(&["models", "add", "Tiny-Model.Q4_1.gguf"]);
    // No progress bar where nobody watches.
    assert_eq!(added.stderr, "");
    assert_eq!(added.success(), format!("tiny-model.q4_1  blake3:{hash}\n"));

    let listed = sandbox.run(&["models", "list", "--json"]).success();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["name"], "tiny-model.q4_1");
    assert_eq!(listed[0]["hash"], hash.as_str());
    assert_eq!(listed[0]["size"], model_file().len());

    sandbox.run(&["models", "remove", "tiny-model.q4_1"]).success();
    let error = sandbox.run(&["models", "remove", "tiny-model.q4_1"]).failure(1);
    assert!(error.contains("no model is called `tiny-model.q4_1`"), "{error}");
    assert!(file.exists());
}

#[test]
fn a_name_is_given_to_another_file_only_when_that_is_meant() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("one.gguf"), model_file()).unwrap();
    std::fs::write(sandbox.path("two.gguf"), [model_file(), vec![0]].concat()).unwrap();
    let add = |file: &str, more: &[&str]| {
        sandbox.run(&[&["models", "add", file, "--name", "tiny"], more].concat())
    };
    add("one.gguf", &[]).success();
    add("one.gguf", &[]).success();
    let error = add("two.gguf", &[]).failure(1);
    assert!(error.contains("hint: choose another name with `--name`"), "{error}");
    add("two.gguf", &["--replace"]).success();
}

#[test]
fn a_provider_does_not_serve_weights_that_were_changed() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("tiny.gguf");
    std::fs::write(&file, model_file()).unwrap();
    sandbox.run(&["models", "add", "tiny.gguf"]).success();
    // One bit, with the size and the time as they were.
    let time = std::fs::metadata(&file).unwrap().modified().unwrap();
    let mut bytes = model_file();
    bytes[20] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();

    let provide = ["--provide", "--model", "tiny", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];
    let error = sandbox.run(&[&provide[..], &["--log", "error"]].concat()).failure(1);
    let hash = blake3::hash(&bytes).to_hex();
    let expected = format!(
        "  caused by: the model file has the hash {hash}, which is not the expected one: it was \
         changed, or is another file\n"
    );
    assert!(error.contains(&expected), "{error}");
    assert!(error.contains("caused by: the model was not loaded"), "{error}");
}

#[test]
fn what_is_no_model_is_refused_by_name() {
    let sandbox = Sandbox::new();
    sandbox.write("notes.txt", "hello");
    let error = sandbox.run(&["models", "add", "notes.txt"]).failure(1);
    assert!(error.starts_with("error: cannot use notes.txt as a model\n"), "{error}");
    sandbox.run(&["models", "add", "absent.gguf"]).failure(1);
    std::fs::write(sandbox.path("a.gguf"), model_file()).unwrap();
    let error = sandbox.run(&["models", "add", "a.gguf", "--name", "a b"]).failure(2);
    assert!(error.contains("hint: choose another with `--name`"), "{error}");
}

#[test]
fn models_can_be_added_while_a_node_runs() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("a.gguf"), model_file()).unwrap();
    let _node = sandbox.start(&[]);
    sandbox.run(&["models", "add", "a.gguf"]).success();
}
