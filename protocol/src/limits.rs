//! Every bound that a peer can push against, with its reason and what happens when it is reached.
//!
//! Owns: the numbers. Must not: hold policy that an operator sets; that is configuration.

use crate::units::{Millis, NanoTon, Tokens};

/// A signed offer on the wire. One model needs about 270 bytes, eight with the longest names about
/// 1,450; larger offers are refused as malformed.
pub const OFFER_BYTES: usize = 1_600;
/// Models in one offer: a machine that serves more runs more nodes.
pub const OFFER_MODELS: usize = 8;
/// Longest life of an offer. Short, because prices and load change and a dead provider must fade.
pub const OFFER_LIFETIME: Millis = Millis::from_secs(600);
/// How far a peer's clock may be ahead of ours before its offer counts as malformed.
pub const CLOCK_SKEW: Millis = Millis::from_secs(60);
/// Offers in a consumer's book: eight candidates for each of a few hundred models. When full, the
/// offer that expires first makes room.
pub const BOOK_OFFERS: usize = 4_096;
/// Length of a model's name in an offer; longer names are refused.
pub const MODEL_NAME_BYTES: usize = 64;

/// One frame of a stream protocol. A prompt fills the largest: 1 MiB of text is about 250,000
/// tokens, longer than any context served here. A larger frame closes the stream.
pub const FRAME_BYTES: usize = 1_100_000;
/// A frame of the control stream: an offer and an envelope. A larger one closes the stream.
pub const CONTROL_FRAME_BYTES: usize = 2_048;
/// Text of a prompt, all turns together. A larger one is refused by the gateway and the provider.
pub const PROMPT_BYTES: usize = 1_048_576;
/// Turns in a prompt: far above any dialogue, and a bound for the template engine.
pub const PROMPT_TURNS: usize = 2_048;
/// Stop strings of a job and their length, as OpenAI has it (4), with room.
pub const STOP_STRINGS: usize = 8;
/// Length of one stop string in bytes.
pub const STOP_STRING_BYTES: usize = 256;
/// Text in one `Chunk` frame: a step of the longest tokens is far below.
pub const CHUNK_BYTES: usize = 65_536;
/// An error text from a peer. Shown to a user, so bounded and stripped of control characters.
pub const PEER_TEXT_BYTES: usize = 512;

/// Evidence in a certificate: a TDX quote is 5 to 8 kB, an SNP report 1.2 kB. Larger is refused.
pub const EVIDENCE_BYTES: usize = 65_536;
/// An attestation answer with all endorsements: 24 kB of DCAP collateral, eight GPUs at 30 kB.
pub const ATTEST_RESPONSE_BYTES: usize = 524_288;
/// GPUs in one attestation answer: as many as a machine for one model has. More are refused.
pub const GPUS: usize = 8;
/// One GPU's report: NVIDIA's interface returns at most this much; real ones are half as long.
pub const GPU_REPORT_BYTES: usize = 8_192;
/// One GPU's certificates in DER: five of them are 3 kB.
pub const GPU_CHAIN_BYTES: usize = 8_192;
/// How long a provider may take to answer an attestation request. Narrows the window for relays.
pub const ATTEST_TIMEOUT: Millis = Millis::from_secs(10);
/// How old a session's evidence may be when a job is sent.
pub const REATTEST_AFTER: Millis = Millis::from_secs(600);
/// Life of a session certificate.
pub const CERTIFICATE_LIFETIME: Millis = Millis::from_secs(6 * 3600);
/// Life of a positive verdict in the cache.
pub const VERDICT_LIFETIME: Millis = Millis::from_secs(3600);
/// Life of a negative verdict in the cache: long enough to blunt a flood, short enough to recover.
pub const NEGATIVE_VERDICT_LIFETIME: Millis = Millis::from_secs(60);

/// Most tokens of completion that may be unpaid: the exposure of either side.
pub const CREDIT_STEP: Tokens = Tokens::new(32);
/// Unpaid steps after which a consumer is no longer served until it has paid. A consumer that is
/// killed cannot know what was under way to it: up to a step for each job that ran, each time. So
/// many jobs run at a time in a channel in which nothing was paid yet. A thief gets as much once for
/// each allocation: 512 tokens, for which a price of 10 TON a million
/// asks 0.005 TON, about what the vault and allocation cost in gas.
pub const DEBT_STEPS: u32 = 16;
/// Greetings of one session that make a provider read the ledger within [`GREETING_WINDOW`]. An
/// honest consumer repeats its own twice a second while the ledger is behind, and greets anew when
/// an allocation has grown. Others are answered from memory.
pub const GREETINGS: u32 = 10;
/// See [`GREETINGS`].
pub const GREETING_WINDOW: Millis = Millis::from_secs(4);
/// The consumer pays each time this many tokens came, half a step, so that the next voucher is
/// under way before the provider's credit ends and the stream never stalls on a round trip.
pub const PAY_EVERY: Tokens = Tokens::new(16);
/// Jobs of one consumer at one provider. More are refused with BUSY.
pub const JOBS_PER_PEER: usize = 64;
/// Jobs that a node runs as a consumer at a time. More are refused by the gateway.
pub const JOBS_PER_NODE: usize = 1_024;
/// Completion tokens that a job may ask for at most.
pub const MAX_COMPLETION: Tokens = Tokens::new(1_000_000);
/// Consumers that a provider keeps a session with.
pub const SESSIONS: usize = 1_024;
/// Providers that one job tries that bring nothing of its answer; then the user gets the last failure.
/// Each of them may have been paid for reading the prompt.
pub const ATTEMPTS_PER_JOB: usize = 3;
/// Providers that one job loses in the middle of its answer. Each has brought it further, and the job's
/// cap bounds what they cost together; a reader's patience is the reason to end.
pub const TAKEOVERS_PER_JOB: u32 = 5;
/// How long a job waits for a place while everybody who fits is busy: they are asked again when they
/// said. Half of the minute that most clients wait for an answer to begin.
pub const QUEUE_TIMEOUT: Millis = Millis::from_secs(30);
/// Time for a chosen provider's session and channel to be ready before the next is tried. Dialling
/// gives up after 5 s a try, attestation after 10 s, and an allocation is on the ledger within two
/// blocks; whoever drags this out keeps the job, not its prompt.
pub const JOB_PREPARE_TIMEOUT: Millis = Millis::from_secs(30);
/// Time for a provider to answer a job with `Started` or a refusal before the next is tried.
/// The prompt is only counted by then: it is read when it is paid, which follows.
pub const JOB_START_TIMEOUT: Millis = Millis::from_secs(15);
/// Time for a started job's first token, beside the time that its prompt takes to read. Whoever
/// falls silent with a prompt in hand keeps a user for this long, and the next provider is tried.
pub const FIRST_TOKEN_TIMEOUT: Millis = Millis::from_secs(15);
/// Time for each token of a prompt until the first token comes: 33 tokens a second, a fifth of what
/// llama.cpp reads of an 8B model on 32 cores for one job alone.
pub const PREFILL_EACH: Millis = Millis::new(30);
/// Time in which a running job must bring [`JOB_PACE`] after which the provider counts as stalled.
pub const JOB_STALL_TIMEOUT: Millis = Millis::from_secs(60);
/// Time without a word after which an answer that was coming counts as broken off, where
/// [`SILENT_TOKENS`] take less. Engines pause for a second or two while they read others' prompts.
pub const JOB_SILENCE: Millis = Millis::from_secs(5);
/// So many tokens' time, at the answer's own pace, is silence: a slow machine is not a dead one.
pub const SILENT_TOKENS: u64 = 32;
/// Tokens that a running job must bring in each [`JOB_STALL_TIMEOUT`]. A time-out for silence alone
/// is met by one token a minute; at this pace a short answer takes some minutes, which the slowest
/// honest machines need and which a consumer remembers for its next choice.
pub const JOB_PACE: Tokens = Tokens::new(16);
/// How long a provider's job may stand still although it may go on: an engine that hangs, or a
/// consumer that does not read and so keeps a place for nothing. Reading a long prompt on a slow
/// CPU takes minutes.
pub const SERVE_STALL_TIMEOUT: Millis = Millis::from_secs(600);
/// How long a provider waits for the next voucher before it ends a job as unpaid.
pub const PAYMENT_TIMEOUT: Millis = Millis::from_secs(60);

/// Allocations in one vault, as in the contract.
pub const VAULT_ALLOCATIONS: usize = 64;
/// Balance that a vault keeps for its own storage rent, as in the contract.
pub const VAULT_RESERVE: NanoTon = NanoTon::from_nano(50_000_000);
