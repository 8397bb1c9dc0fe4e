//! `models`: the model files that this machine knows by name.
//!
//! Owns: the layout, the progress bar, and the name that a file gets by default.
//! Must not: copy or delete a model file; the catalogue says where it lies.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use cocoon_engine::catalogue::{Catalogue, HASH_PREFIX, Model};
use cocoon_engine::gguf::Metadata;
use cocoon_engine::hashing::hash_file;
use cocoon_protocol::identity::ModelHash;
use cocoon_protocol::units::Tokens;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{Context, ExitStatus, Failure};

/// The progress bar's look: what a user waits for, how far it is, how long it takes.
const PROGRESS: &str = "hashing  {bar:30}  {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a GGUF file known by a name. The file stays where it is.
    Add {
        /// The file.
        file: PathBuf,
        /// Its name; by default the file's, in small letters and without `.gguf`.
        #[arg(long)]
        name: Option<String>,
        /// Give the name to this file even if another one has it.
        #[arg(long)]
        replace: bool,
    },
    /// List the known models.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Forget a model. Its file stays.
    Remove {
        /// Its name.
        name: String,
    },
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Add { file, name, replace } => add(context, &file, name, replace),
        Command::List { json } => list(context, json),
        Command::Remove { name } => {
            let folder = context.folder()?;
            let _lock = folder.lock_catalogue()?;
            let mut catalogue = Catalogue::load(&folder.models()).map_err(Failure::new)?;
            if catalogue.remove(&name).is_none() {
                return Err(unknown(&name));
            }
            catalogue.save(&folder.models()).map_err(Failure::new)
        }
    }
}

fn unknown(name: &str) -> Failure {
    Failure::new(anyhow!("no model is called `{name}`"))
        .with_hint(Some("`cocoon-node models list` shows the known ones"))
}

fn add(context: &Context, file: &Path, name: Option<String>, replace: bool) -> Result<(), Failure> {
    let about = || format!("cannot use {} as a model", file.display());
    let path = file.canonicalize().with_context(about).map_err(Failure::new)?;
    let name = name.unwrap_or_else(|| default_name(&path));
    cocoon_engine::catalogue::check_name(&name).map_err(|error| {
        let hint = "choose another with `--name`";
        Failure::new(error).with_status(ExitStatus::Usage).with_hint(Some(hint))
    })?;
    let metadata = Metadata::read_file(&path).with_context(about).map_err(Failure::new)?;
    let (hash, size) = hash(&path).with_context(about).map_err(Failure::new)?;
    let model = Model {
        hash,
        path: Some(path),
        size,
        context: metadata.context.unwrap_or(Tokens::ZERO),
        quantisation: metadata.quantisation,
        licence: metadata.licence,
    };
    let folder = context.folder()?;
    let _lock = folder.lock_catalogue()?;
    let mut catalogue = Catalogue::load(&folder.models()).map_err(Failure::new)?;
    let other = catalogue.model(&name).is_some_and(|known| known.hash != hash);
    if other && !replace {
        return Err(Failure::new(anyhow!("another model is called `{name}` already"))
            .with_hint(Some("choose another name with `--name`, or give `--replace`")));
    }
    catalogue.insert(&name, model).map_err(Failure::new)?;
    catalogue.save(&folder.models()).map_err(Failure::new)?;
    context.printer.line(format_args!("{name}  {HASH_PREFIX}{hash}"))
}

/// The file's name without `.gguf`, in small letters: how models are usually called.
fn default_name(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_ascii_lowercase());
    stem.unwrap_or_default()
}

/// The file's hash and size, with a progress bar where somebody watches.
fn hash(path: &Path) -> std::io::Result<(ModelHash, u64)> {
    let size = std::fs::metadata(path)?.len();
    // Draws to standard error, and only when that is a terminal.
    let bar = ProgressBar::new(size);
    if let Ok(style) = ProgressStyle::with_template(PROGRESS) {
        bar.set_style(style);
    }
    let hash = hash_file(path, |done, _| bar.set_position(done));
    bar.finish_and_clear();
    Ok((hash?, size))
}

/// A model as `--json` shows it.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    #[serde(flatten)]
    model: &'a Model,
}

fn list(context: &Context, json: bool) -> Result<(), Failure> {
    let catalogue = match context.existing_folder()? {
        Some(folder) => Catalogue::load(&folder.models()).map_err(Failure::new)?,
        None => Catalogue::default(),
    };
    if json {
        let models: Vec<_> = catalogue.iter().map(|(name, model)| Listed { name, model }).collect();
        return context.printer.json(&models);
    }
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let rows: Vec<_> = catalogue
        .iter()
        .map(|(name, model)| {
            let path = model.path.as_ref().map(|path| path.display().to_string());
            vec![
                name.to_owned(),
                HumanBytes(model.size).to_string(),
                format!("{} tokens", model.context),
                or_dash(&model.quantisation),
                or_dash(&model.licence),
                format!("{HASH_PREFIX}{}", model.hash),
                or_dash(&path),
            ]
        })
        .collect();
    let columns = ["NAME", "SIZE", "CONTEXT", "WEIGHTS", "LICENCE", "HASH", "FILE"];
    context.printer.table("models", &columns, &rows)
}
