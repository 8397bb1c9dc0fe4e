//! The notebook and the script are the same code, and the notebook is kept without outputs.

#[test]
fn the_notebook_is_the_script() {
    let script = include_str!("../../notebooks/first_look.py");
    let notebook: serde_json::Value =
        serde_json::from_str(include_str!("../../notebooks/first-look.ipynb")).unwrap();
    let cells = notebook["cells"].as_array().unwrap();
    let code: Vec<_> = cells.iter().filter(|it| it["cell_type"] == "code").collect();
    let parts: Vec<_> = script.split("\n# %%\n").skip(1).map(str::trim).collect();
    assert_eq!(code.len(), parts.len(), "run notebooks/make.py");
    for (cell, part) in code.iter().zip(parts) {
        let lines = cell["source"].as_array().unwrap().iter().map(|it| it.as_str().unwrap());
        assert_eq!(lines.collect::<String>(), part, "run notebooks/make.py");
        assert!(
            cell["outputs"].as_array().unwrap().is_empty() && cell["execution_count"].is_null()
        );
    }
}
