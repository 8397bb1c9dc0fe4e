//! A model of half a megabyte with random weights: a GGUF file that llama.cpp loads in
//! milliseconds, with a byte vocabulary and the ChatML template.
//!
//! Owns: the bytes. The same seed gives the same file, and so the same hash.

use std::path::Path;

use cocoon_protocol::identity::ModelHash;

const WIDTH: usize = 64;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KEY_VALUE_HEADS: usize = 2;
const HIDDEN: usize = 128;
/// What the file says that it was trained for.
pub(crate) const CONTEXT: u32 = 8_192;
const BEGIN: u32 = 1;
const END: u32 = 260;

const CHATML: &str = "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] \
    + '<|im_end|>\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n'}}\
    {% endif %}";

// Types of metadata values, as in the GGUF specification.
const UINT32: u32 = 4;
const INT32: u32 = 5;
const FLOAT32: u32 = 6;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

// Types of tokens, as in llama.cpp.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// How text becomes tokens. Either way a byte is a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tokenizer {
    /// SentencePiece, as Llama 2 has it.
    SentencePiece,
    /// Byte pairs, cut into words beforehand by Mistral's `tekken` expression.
    Tekken,
}

/// Writes the model to `path` and returns its hash.
pub(crate) fn write(path: &Path, tokenizer: Tokenizer, seed: u64) -> ModelHash {
    let bytes = model(tokenizer, seed);
    std::fs::write(path, &bytes).unwrap();
    ModelHash::from_bytes(*blake3::hash(&bytes).as_bytes())
}

/// How GPT-2 spells a byte: printable ones as themselves, the others as characters from 256 on.
fn spelled(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&byte| !printable(byte)).count();
    char::from_u32(256 + u32::try_from(before).unwrap()).unwrap()
}

fn vocabulary(tokenizer: Tokenizer) -> Vec<(String, i32)> {
    let mut tokens =
        vec![("<unk>".into(), UNKNOWN), ("<s>".into(), CONTROL), ("</s>".into(), CONTROL)];
    tokens.extend((0..=255_u8).map(|byte| match tokenizer {
        Tokenizer::SentencePiece => (format!("<0x{byte:02X}>"), BYTE),
        Tokenizer::Tekken => (spelled(byte).to_string(), NORMAL),
    }));
    tokens.push(("<|im_start|>".into(), CONTROL));
    tokens.push(("<|im_end|>".into(), CONTROL));
    // How this tokenizer spells a space; without it a space would be three bytes.
    tokens.push(("\u{2581}".into(), NORMAL));
    while tokens.len() % 32 != 0 {
        tokens.push((format!("<unused{}>", tokens.len()), UNUSED));
    }
    tokens
}

struct Metadata {
    entries: u64,
    bytes: Vec<u8>,
}

impl Metadata {
    fn entry(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.entries += 1;
        put_text(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend(value);
    }

    fn text(&mut self, key: &str, value: &str) {
        let mut bytes = Vec::new();
        put_text(&mut bytes, value);
        self.entry(key, STRING, &bytes);
    }

    fn number(&mut self, key: &str, value: u32) {
        self.entry(key, UINT32, &value.to_le_bytes());
    }

    fn size(&mut self, key: &str, value: usize) {
        self.number(key, u32::try_from(value).unwrap());
    }

    fn array(&mut self, key: &str, kind: u32, elements: &[Vec<u8>]) {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend((elements.len() as u64).to_le_bytes());
        bytes.extend(elements.concat());
        self.entry(key, ARRAY, &bytes);
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn metadata(tokenizer: Tokenizer, tokens: &[(String, i32)]) -> Metadata {
    let mut all = Metadata { entries: 0, bytes: Vec::new() };
    all.text("general.architecture", "llama");
    all.text("general.name", "tiny-random");
    all.number("general.file_type", 0);
    all.text("general.license", "cc0-1.0");
    all.number("llama.context_length", CONTEXT);
    all.size("llama.embedding_length", WIDTH);
    all.size("llama.block_count", LAYERS);
    all.size("llama.feed_forward_length", HIDDEN);
    all.size("llama.attention.head_count", HEADS);
    all.size("llama.attention.head_count_kv", KEY_VALUE_HEADS);
    all.size("llama.rope.dimension_count", WIDTH / HEADS);
    all.entry("llama.attention.layer_norm_rms_epsilon", FLOAT32, &1e-5_f32.to_le_bytes());
    all.size("llama.vocab_size", tokens.len());
    let (model, words) = match tokenizer {
        Tokenizer::SentencePiece => ("llama", "default"),
        Tokenizer::Tekken => ("gpt2", "tekken"),
    };
    all.text("tokenizer.ggml.model", model);
    all.text("tokenizer.ggml.pre", words);
    let bytes_of = |text: &str| {
        let mut bytes = Vec::new();
        put_text(&mut bytes, text);
        bytes
    };
    // One merge, of characters that no test uses: there must be some.
    all.array("tokenizer.ggml.merges", STRING, &[bytes_of("| ~")]);
    let texts: Vec<_> = tokens.iter().map(|(text, _)| bytes_of(text)).collect();
    all.array("tokenizer.ggml.tokens", STRING, &texts);
    let scores = vec![0_f32.to_le_bytes().to_vec(); tokens.len()];
    all.array("tokenizer.ggml.scores", FLOAT32, &scores);
    let kinds: Vec<_> = tokens.iter().map(|(_, kind)| kind.to_le_bytes().to_vec()).collect();
    all.array("tokenizer.ggml.token_type", INT32, &kinds);
    all.number("tokenizer.ggml.bos_token_id", BEGIN);
    all.number("tokenizer.ggml.eos_token_id", END);
    all.number("tokenizer.ggml.unknown_token_id", 0);
    all.entry("tokenizer.ggml.add_bos_token", BOOL, &[1]);
    all.entry("tokenizer.ggml.add_space_prefix", BOOL, &[0]);
    all.text("tokenizer.chat_template", CHATML);
    all
}

enum Fill {
    Ones,
    Random,
    /// Random for tokens that are text and nothing for the rest, so that no end comes by chance.
    Output,
}

fn tensors(vocabulary: usize) -> Vec<(String, Vec<usize>, Fill)> {
    let key_value = WIDTH / HEADS * KEY_VALUE_HEADS;
    let mut all = vec![
        ("token_embd.weight".to_owned(), vec![WIDTH, vocabulary], Fill::Random),
        ("output_norm.weight".to_owned(), vec![WIDTH], Fill::Ones),
        ("output.weight".to_owned(), vec![WIDTH, vocabulary], Fill::Output),
    ];
    for layer in 0..LAYERS {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        all.push((name("attn_norm"), vec![WIDTH], Fill::Ones));
        all.push((name("ffn_norm"), vec![WIDTH], Fill::Ones));
        all.push((name("attn_q"), vec![WIDTH, WIDTH], Fill::Random));
        all.push((name("attn_k"), vec![WIDTH, key_value], Fill::Random));
        all.push((name("attn_v"), vec![WIDTH, key_value], Fill::Random));
        all.push((name("attn_output"), vec![WIDTH, WIDTH], Fill::Random));
        all.push((name("ffn_gate"), vec![WIDTH, HIDDEN], Fill::Random));
        all.push((name("ffn_up"), vec![WIDTH, HIDDEN], Fill::Random));
        all.push((name("ffn_down"), vec![HIDDEN, WIDTH], Fill::Random));
    }
    all
}

fn model(tokenizer: Tokenizer, seed: u64) -> Vec<u8> {
    let tokens = vocabulary(tokenizer);
    let tensors = tensors(tokens.len());
    let metadata = metadata(tokenizer, &tokens);
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend(metadata.entries.to_le_bytes());
    file.extend(metadata.bytes);
    let mut offset = 0_u64;
    for (name, shape, _) in &tensors {
        put_text(&mut file, name);
        file.extend(u32::try_from(shape.len()).unwrap().to_le_bytes());
        for &dimension in shape {
            file.extend((dimension as u64).to_le_bytes());
        }
        // Type 0 is 32-bit floats. Every shape here is a multiple of the alignment, 32 bytes.
        file.extend(0_u32.to_le_bytes());
        file.extend(offset.to_le_bytes());
        offset += shape.iter().product::<usize>() as u64 * 4;
    }
    file.resize(file.len().next_multiple_of(32), 0);
    let mut state = seed;
    for (_, shape, fill) in &tensors {
        // Large enough that the likeliest token is far from the next: no ties between runs.
        let scale = 0.25 * (64.0 / shape[0] as f32).sqrt();
        for index in 0..shape.iter().product() {
            let value = match fill {
                Fill::Ones => 1.0,
                Fill::Random => random(&mut state) * scale,
                Fill::Output if is_text(&tokens[index / WIDTH]) => random(&mut state) * scale * 4.0,
                Fill::Output => 0.0,
            };
            file.extend(value.to_le_bytes());
        }
    }
    file
}

fn is_text(token: &(String, i32)) -> bool {
    matches!(token.1, NORMAL | BYTE)
}

/// A number from −1 to 1 (xorshift64).
fn random(state: &mut u64) -> f32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 40) as f32 / (1_u64 << 24) as f32 * 2.0 - 1.0
}
