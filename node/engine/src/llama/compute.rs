//! The model itself: a llama.cpp context as the batcher sees it, and its tokenizer.
//!
//! Owns: loading, the context's parameters, one batch of memory.
//! Must not: run in the node's process, or decide anything.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;

use super::batcher::{Compute, Entry, STEP_TOKENS, StepFailed, Token};
use super::pieces::Specials;
use super::wire::{LoadFailure, LoadRequest};

/// Versions of the two crates that llama.cpp comes with; a test holds them against the workspace's
/// manifest, which pins both.
const BINDINGS: &str = "0.1.160";
const SOURCES: &str = "0.1.161";

/// The engine's name, the versions that decide what it computes, and what it was built to compute
/// on, for [`crate::Capabilities`]. At most 64 bytes.
pub(super) fn build() -> String {
    let mut build = format!("llama.cpp/{SOURCES} bindings/{BINDINGS} cpu");
    let backends = [
        ("cuda", cfg!(feature = "cuda")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("metal", cfg!(feature = "metal")),
        ("rocm", cfg!(feature = "rocm")),
    ];
    for (name, _) in backends.into_iter().filter(|(_, built)| *built) {
        build.push('+');
        build.push_str(name);
    }
    build
}

/// A loaded model; shared by the thread that tokenises and the one that decodes.
#[derive(Debug)]
pub(super) struct Model {
    backend: LlamaBackend,
    model: LlamaModel,
    specials: Specials,
}

impl Model {
    /// Loads the file, whose hash has been checked.
    pub(super) fn load(request: &LoadRequest) -> Result<Self, LoadFailure> {
        let backend = LlamaBackend::init().map_err(|_| LoadFailure::NotLoadable)?;
        let parameters = LlamaModelParams::default().with_n_gpu_layers(request.gpu_layers);
        let model = LlamaModel::load_from_file(&backend, &request.path, &parameters)
            .map_err(|_| LoadFailure::NotLoadable)?;
        let vocabulary = model.vocab();
        let special = |token: &LlamaToken| vocabulary.is_control(*token);
        let texts = vocabulary
            .tokens()
            .filter(special)
            .filter_map(|token| vocabulary.text(token).map(|text| text.to_bytes().to_vec()));
        let specials = Specials::new(texts);
        Ok(Self { backend, model, specials })
    }

    /// The context that jobs get: what was asked, but not more than the model was trained for.
    pub(super) fn context_tokens(&self, asked: u32) -> u32 {
        match self.model.n_ctx_train() {
            0 => asked,
            trained => asked.min(trained),
        }
    }

    /// The chat template that the file brings.
    pub(super) fn chat_template(&self) -> Option<String> {
        self.model.meta_val_str("tokenizer.chat_template").ok()
    }

    /// The text of the token that begins every sequence; empty when there is none.
    pub(super) fn begin_text(&self) -> String {
        self.special_text(self.model.vocab().bos())
    }

    /// The text of the token that ends a sequence; empty when there is none.
    pub(super) fn end_text(&self) -> String {
        self.special_text(self.model.vocab().eos())
    }

    fn special_text(&self, token: LlamaToken) -> String {
        // llama.cpp's "no such token" is −1.
        if token.0 < 0 {
            return String::new();
        }
        let vocabulary = self.model.vocab();
        let text = vocabulary.text(token);
        text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Tokenises a prompt. The token that begins every sequence is put in front when the model
    /// wants it and the text does not begin with it already (many templates write it); none is put
    /// at the end, because the prompt is to be continued.
    fn tokenise(&self, text: &str) -> Vec<Token> {
        let vocabulary = self.model.vocab();
        let mut tokens = self.tokens_of(text);
        let begin = vocabulary.bos();
        if vocabulary.should_add_bos()
            && let Ok(begin) = Token::try_from(begin.0)
            && tokens.first() != Some(&begin)
        {
            tokens.insert(0, begin);
        }
        tokens
    }

    /// The tokens of `text` alone.
    fn tokens_of(&self, text: &str) -> Vec<Token> {
        let vocabulary = self.model.vocab();
        let mut tokens = Vec::new();
        for piece in self.specials.split(text) {
            // A token has a byte at least; with this room one pass suffices.
            tokens.reserve(piece.len().max(8));
            vocabulary.tokenize_into(piece.as_bytes(), &mut tokens, false, true);
        }
        tokens.into_iter().filter_map(|token| Token::try_from(token.0).ok()).collect()
    }

    /// [`Self::tokenise`] of a prompt with the beginning of its answer behind it, and how many tokens
    /// are the prompt's. An answer begins with a token of its own, so that no token lies across the two:
    /// the model goes on from what it had before it when it wrote the beginning.
    pub(super) fn tokenise_begun(&self, text: &str, begun: &str) -> (Vec<Token>, usize) {
        let mut prompt = self.tokenise(text);
        let opening = prompt.len();
        if !begun.is_empty() {
            // Some vocabularies put a space before whatever stands alone; so not the beginning alone.
            let whole = self.tokenise(&[text, begun].concat());
            if whole.starts_with(&prompt) {
                prompt = whole;
            } else {
                prompt.extend(self.tokens_of(begun));
            }
        }
        (prompt, opening)
    }
}

/// A context of a [`Model`].
pub(super) struct Context<'a> {
    model: &'a LlamaModel,
    context: LlamaContext<'a>,
    batch: LlamaBatch<'static>,
}

impl<'a> Context<'a> {
    /// Takes the memory for `context` tokens in `slots` sequences.
    pub(super) fn new(
        model: &'a Model,
        request: &LoadRequest,
        context: u32,
    ) -> Result<Self, LoadFailure> {
        let threads = i32::try_from(request.threads.max(1)).unwrap_or(i32::MAX);
        let step = u32::try_from(STEP_TOKENS).unwrap_or(u32::MAX);
        let parameters = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(context))
            .with_n_batch(step)
            .with_n_ubatch(step)
            .with_n_seq_max(request.slots)
            .with_n_threads(threads)
            .with_n_threads_batch(threads)
            // All sequences draw on one pool of cells, so that one long job may use most of it.
            .with_kv_unified(true)
            // Models with a sliding window must keep all positions for prefixes to be reusable.
            .with_swa_full(true);
        let context = model
            .model
            .new_context(&model.backend, parameters)
            .map_err(|_| LoadFailure::NoContext)?;
        let batch = LlamaBatch::new(STEP_TOKENS, 1);
        Ok(Self { model: &model.model, context, batch })
    }
}

fn llama_token(token: Token) -> LlamaToken {
    // Tokens come from llama.cpp and are below its vocabulary's size, an i32.
    LlamaToken(i32::try_from(token).unwrap_or(0))
}

impl Compute for Context<'_> {
    fn step(&mut self, entries: &[Entry]) -> Result<Duration, StepFailed> {
        let begun = Instant::now();
        self.batch.clear();
        for entry in entries {
            let position = i32::try_from(entry.position).map_err(|_| StepFailed)?;
            let sequence = i32::try_from(entry.sequence).map_err(|_| StepFailed)?;
            let token = llama_token(entry.token);
            self.batch
                .add(token, position, &[sequence], entry.wants_logits)
                .map_err(|_| StepFailed)?;
        }
        self.context.decode(&mut self.batch).map_err(|_| StepFailed)?;
        self.context.synchronize();
        Ok(begun.elapsed())
    }

    fn logits(&self, index: usize) -> &[f32] {
        // Panics, and so ends the worker, for an entry without logits: the batcher asks for none.
        self.context.get_logits_ith(i32::try_from(index).unwrap_or(i32::MAX))
    }

    fn forget(&mut self, sequence: usize, position: usize) -> bool {
        let (Ok(sequence), Ok(position)) = (u32::try_from(sequence), u32::try_from(position))
        else {
            return false;
        };
        let forgotten = self.context.clear_kv_cache_seq(Some(sequence), Some(position), None);
        if forgotten == Ok(true) {
            return true;
        }
        // Recurrent models cannot go back a part of the way. Forgetting all never fails.
        let _ = self.context.clear_kv_cache_seq(Some(sequence), None, None);
        false
    }

    fn piece(&self, token: Token) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Control tokens have no text for a reader.
        self.model.vocab().token_to_piece_into(llama_token(token), &mut bytes, false, None);
        bytes
    }

    fn is_end(&self, token: Token) -> bool {
        self.model.vocab().is_eog(llama_token(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_names_the_versions_that_the_workspace_pins() {
        let manifest = include_str!("../../../../Cargo.toml");
        for (name, version) in [("llama-cpp-2", BINDINGS), ("llama-cpp-sys-2", SOURCES)] {
            let pin = format!("{name} = \"={version}\"");
            assert!(manifest.lines().any(|line| line == pin), "the manifest does not say {pin}");
        }
        let build = build();
        assert!(build.starts_with("llama.cpp/0.1.161 bindings/0.1.160 cpu"), "{build}");
        assert!(build.len() <= 64, "{build}");
    }
}
