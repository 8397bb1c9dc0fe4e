//! The liteserver's questions and answers, as in TON's `lite_api.tl`.
//!
//! Owns: both directions of every method that we ask or answer, and the frames around them.
//! Must not: check a proof, or know where an answer comes from.

use cocoon_protocol::identity::TonAddress;
use tycho_types::models::BlockId;

use super::tl::{Malformed, Reader, Writer};

const ADNL_QUERY: u32 = 0xb48b_f97a;
const ADNL_ANSWER: u32 = 0x0fac_8416;
const PING: u32 = 0x4d08_2b9a;
const PONG: u32 = 0xdc69_fb03;
const QUERY: u32 = 0x798c_06df;
const WAIT: u32 = 0xbaea_b892;
const ERROR: u32 = 0xbba9_e148;

const GET_MASTERCHAIN_INFO: u32 = 0x89b5_e62e;
const GET_MASTERCHAIN_INFO_EXT: u32 = 0x70a6_71df;
const GET_TIME: u32 = 0x16ad_5a34;
const GET_VERSION: u32 = 0x232b_940b;
const GET_BLOCK: u32 = 0x6377_cf0d;
const GET_BLOCK_HEADER: u32 = 0x21ec_069e;
const SEND_MESSAGE: u32 = 0x690a_d482;
const GET_ACCOUNT_STATE: u32 = 0x6b89_0e25;
const RUN_METHOD: u32 = 0x5cc6_5dd2;
const GET_SHARD_INFO: u32 = 0x46a2_f425;
const GET_ALL_SHARDS_INFO: u32 = 0x74d3_fd6b;
const GET_TRANSACTIONS: u32 = 0x1c40_e7a1;
const LOOKUP_BLOCK: u32 = 0xfac8_f71e;
const GET_CONFIG_ALL: u32 = 0x911b_26b7;
const GET_CONFIG_PARAMS: u32 = 0x2a11_1c19;
const GET_LIBRARIES: u32 = 0xd122_b662;

const MASTERCHAIN_INFO: u32 = 0x8583_2881;
const MASTERCHAIN_INFO_EXT: u32 = 0xa8cc_e0f5;
const CURRENT_TIME: u32 = 0xe953_000d;
const VERSION: u32 = 0x5a04_91e5;
const BLOCK_DATA: u32 = 0xa574_ed6c;
const BLOCK_HEADER: u32 = 0x752d_8219;
const SEND_STATUS: u32 = 0x3950_e597;
const ACCOUNT_STATE: u32 = 0x7079_c751;
const METHOD_RESULT: u32 = 0xa39a_616b;
const SHARD_INFO: u32 = 0x9fe6_cd84;
const ALL_SHARDS_INFO: u32 = 0x098f_e72d;
const TRANSACTION_LIST: u32 = 0x6f26_c60b;
const CONFIG_INFO: u32 = 0xae7b_272f;
const LIBRARY_RESULT: u32 = 0x117a_b96b;

/// Bytes of a block's id, to bound how many a list may announce.
const BLOCK_BYTES: usize = 4 + 8 + 4 + 32 + 32;

/// What a frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// A question with the number that its answer will carry.
    Query {
        /// Chosen by the client.
        id: [u8; 32],
        /// The question, still in TL.
        query: Vec<u8>,
    },
    /// The answer to a question.
    Answer {
        /// The question's number.
        id: [u8; 32],
        /// The answer, still in TL.
        answer: Vec<u8>,
    },
    /// Asks for a [`Envelope::Pong`] with the same number.
    Ping(u64),
    /// Says that the connection is alive.
    Pong(u64),
}

impl Envelope {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Query { id, query } => {
                let query = Writer::of(QUERY).bytes(query).0;
                Writer::of(ADNL_QUERY).raw(id).bytes(&query).0
            }
            Self::Answer { id, answer } => Writer::of(ADNL_ANSWER).raw(id).bytes(answer).0,
            Self::Ping(number) => Writer::of(PING).u64(*number).0,
            Self::Pong(number) => Writer::of(PONG).u64(*number).0,
        }
    }

    /// From the bytes of a frame.
    ///
    /// # Errors
    ///
    /// When they are none of the four.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let envelope = match reader.u32()? {
            ADNL_QUERY => {
                let id = reader.take()?;
                let mut inner = Reader(reader.bytes()?);
                if inner.u32()? != QUERY {
                    return Err(Malformed);
                }
                Self::Query { id, query: inner.bytes()?.to_vec() }
            }
            ADNL_ANSWER => Self::Answer { id: reader.take()?, answer: reader.bytes()?.to_vec() },
            PING => Self::Ping(reader.u64()?),
            PONG => Self::Pong(reader.u64()?),
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(envelope)
    }
}

/// How a block is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// By its number.
    Number(u32),
    /// The one that covers a logical time.
    LogicalTime(u64),
    /// The newest that is not younger than a time in Unix seconds.
    Time(u32),
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of lite_api.tl")]
pub enum Query {
    MasterchainInfo,
    MasterchainInfoExt,
    Time,
    Version,
    Block(BlockId),
    BlockHeader(BlockId),
    Send(Vec<u8>),
    AccountState { block: BlockId, account: TonAddress },
    RunMethod { mode: u32, block: BlockId, account: TonAddress, method: u32, stack: Vec<u8> },
    ShardInfo { block: BlockId, workchain: i32 },
    AllShardsInfo(BlockId),
    Transactions { count: u32, account: TonAddress, lt: u64, hash: [u8; 32] },
    LookUp { workchain: i32, shard: u64, by: Lookup },
    Config { block: BlockId, parameters: Option<Vec<u32>> },
    Libraries,
}

/// A question, and what may stand in front of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Answer once this masterchain block is there, or after so many milliseconds.
    pub wait: Option<(u32, u32)>,
    /// The question itself.
    pub query: Query,
}

fn account(reader: &mut Reader<'_>) -> Result<TonAddress, Malformed> {
    let workchain = i8::try_from(reader.i32()?).map_err(|_| Malformed)?;
    Ok(TonAddress { workchain, hash: reader.take()? })
}

fn look_up(reader: &mut Reader<'_>) -> Result<Query, Malformed> {
    let mode = reader.u32()?;
    let (workchain, shard) = reader.shard()?;
    let number = reader.u32()?;
    let by = match mode & 7 {
        1 => Lookup::Number(number),
        2 => Lookup::LogicalTime(reader.u64()?),
        4 => Lookup::Time(reader.u32()?),
        _ => return Err(Malformed),
    };
    Ok(Query::LookUp { workchain, shard, by })
}

impl Query {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let on = |writer: Writer, account: &TonAddress| {
            writer.i32(account.workchain.into()).raw(&account.hash)
        };
        match self {
            Self::MasterchainInfo => Writer::of(GET_MASTERCHAIN_INFO),
            Self::MasterchainInfoExt => Writer::of(GET_MASTERCHAIN_INFO_EXT).u32(0),
            Self::Time => Writer::of(GET_TIME),
            Self::Version => Writer::of(GET_VERSION),
            Self::Block(id) => Writer::of(GET_BLOCK).block(id),
            Self::BlockHeader(id) => Writer::of(GET_BLOCK_HEADER).block(id).u32(0),
            Self::Send(message) => Writer::of(SEND_MESSAGE).bytes(message),
            Self::AccountState { block, account } => {
                on(Writer::of(GET_ACCOUNT_STATE).block(block), account)
            }
            Self::RunMethod { mode, block, account, method, stack } => {
                on(Writer::of(RUN_METHOD).u32(*mode).block(block), account)
                    .u64((*method).into())
                    .bytes(stack)
            }
            Self::ShardInfo { block, workchain } => {
                Writer::of(GET_SHARD_INFO).block(block).i32(*workchain).u64(1 << 63).flag(false)
            }
            Self::AllShardsInfo(id) => Writer::of(GET_ALL_SHARDS_INFO).block(id),
            Self::Transactions { count, account, lt, hash } => {
                on(Writer::of(GET_TRANSACTIONS).u32(*count), account).u64(*lt).raw(hash)
            }
            Self::LookUp { workchain, shard, by } => {
                let (mode, number) = match by {
                    Lookup::Number(number) => (1, *number),
                    Lookup::LogicalTime(_) => (2, 0),
                    Lookup::Time(_) => (4, 0),
                };
                let query =
                    Writer::of(LOOKUP_BLOCK).u32(mode).i32(*workchain).u64(*shard).u32(number);
                match by {
                    Lookup::Number(_) => query,
                    Lookup::LogicalTime(lt) => query.u64(*lt),
                    Lookup::Time(time) => query.u32(*time),
                }
            }
            Self::Config { block, parameters: None } => {
                Writer::of(GET_CONFIG_ALL).u32(0).block(block)
            }
            Self::Config { block, parameters: Some(parameters) } => {
                let count = u32::try_from(parameters.len()).unwrap_or(0);
                let query = Writer::of(GET_CONFIG_PARAMS).u32(0).block(block).u32(count);
                parameters.iter().fold(query, |query, parameter| query.u32(*parameter))
            }
            Self::Libraries => Writer::of(GET_LIBRARIES).u32(0),
        }
        .0
    }
}

impl Asked {
    /// From the bytes inside a [`Envelope::Query`].
    ///
    /// # Errors
    ///
    /// When they are no question that is known here.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let mut constructor = reader.u32()?;
        let mut wait = None;
        if constructor == WAIT {
            wait = Some((reader.u32()?, reader.u32()?));
            constructor = reader.u32()?;
        }
        let query = Self::read(constructor, &mut reader)?;
        reader.end()?;
        Ok(Self { wait, query })
    }

    fn read(constructor: u32, reader: &mut Reader<'_>) -> Result<Query, Malformed> {
        Ok(match constructor {
            GET_MASTERCHAIN_INFO => Query::MasterchainInfo,
            GET_MASTERCHAIN_INFO_EXT => {
                reader.u32()?;
                Query::MasterchainInfoExt
            }
            GET_TIME => Query::Time,
            GET_VERSION => Query::Version,
            GET_BLOCK => Query::Block(reader.block()?),
            GET_BLOCK_HEADER => {
                let id = reader.block()?;
                reader.u32()?;
                Query::BlockHeader(id)
            }
            SEND_MESSAGE => Query::Send(reader.bytes()?.to_vec()),
            GET_ACCOUNT_STATE => {
                Query::AccountState { block: reader.block()?, account: account(reader)? }
            }
            RUN_METHOD => Query::RunMethod {
                mode: reader.u32()?,
                block: reader.block()?,
                account: account(reader)?,
                method: u32::try_from(reader.u64()?).map_err(|_| Malformed)?,
                stack: reader.bytes()?.to_vec(),
            },
            GET_SHARD_INFO => {
                let block = reader.block()?;
                let workchain = reader.i32()?;
                reader.u64()?;
                reader.flag()?;
                Query::ShardInfo { block, workchain }
            }
            GET_ALL_SHARDS_INFO => Query::AllShardsInfo(reader.block()?),
            GET_TRANSACTIONS => Query::Transactions {
                count: reader.u32()?,
                account: account(reader)?,
                lt: reader.u64()?,
                hash: reader.take()?,
            },
            LOOKUP_BLOCK => look_up(reader)?,
            GET_CONFIG_ALL => {
                reader.u32()?;
                Query::Config { block: reader.block()?, parameters: None }
            }
            GET_CONFIG_PARAMS => {
                reader.u32()?;
                let block = reader.block()?;
                let count = reader.count(4)?;
                let parameters = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
                Query::Config { block, parameters: Some(parameters) }
            }
            GET_LIBRARIES => {
                let count = reader.count(32)?;
                for _ in 0..count {
                    reader.take::<32>()?;
                }
                Query::Libraries
            }
            _ => return Err(Malformed),
        })
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of lite_api.tl")]
pub enum Answer {
    Failed { code: i32, message: String },
    MasterchainInfo { last: BlockId, state_root: [u8; 32], zero: ZeroState },
    MasterchainInfoExt { last: BlockId, time: u32, now: u32, state_root: [u8; 32], zero: ZeroState },
    Time(u32),
    Version { now: u32 },
    Block { id: BlockId, data: Vec<u8> },
    BlockHeader { id: BlockId, proof: Vec<u8> },
    Sent { status: u32 },
    AccountState(AccountAnswer),
    MethodResult { account: Option<AccountAnswer>, exit_code: i32, stack: Option<Vec<u8>> },
    ShardInfo { block: BlockId, shard: BlockId, proof: Vec<u8>, description: Vec<u8> },
    AllShardsInfo { block: BlockId, proof: Vec<u8>, shards: Vec<u8> },
    Transactions { blocks: Vec<BlockId>, transactions: Vec<u8> },
    Config { block: BlockId, state_proof: Vec<u8>, config_proof: Vec<u8> },
    NoLibraries,
}

/// The state before a network's first block, which tells networks apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroState {
    /// Hash of its root cell.
    pub root_hash: [u8; 32],
    /// Hash of its file.
    pub file_hash: [u8; 32],
}

/// An account's state and the proofs that go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountAnswer {
    /// The masterchain block that was asked for.
    pub block: BlockId,
    /// The block of the account's shard that it refers to.
    pub shard: BlockId,
    /// From the masterchain block to the shard's block.
    pub shard_proof: Vec<u8>,
    /// From the shard's block to the account.
    pub proof: Vec<u8>,
    /// The account; empty when there is none.
    pub state: Vec<u8>,
}

/// The version and the capabilities of a liteserver as of 2024, which clients look at.
const SERVER_VERSION: u32 = 0x101;
const SERVER_CAPABILITIES: u64 = 7;

fn zero_state(writer: Writer, zero: &ZeroState) -> Writer {
    writer.i32(-1).raw(&zero.root_hash).raw(&zero.file_hash)
}

fn read_zero_state(reader: &mut Reader<'_>) -> Result<ZeroState, Malformed> {
    if reader.i32()? != -1 {
        return Err(Malformed);
    }
    Ok(ZeroState { root_hash: reader.take()?, file_hash: reader.take()? })
}

impl Answer {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Failed { code, message } => {
                Writer::of(ERROR).i32(*code).bytes(message.as_bytes())
            }
            Self::MasterchainInfo { last, state_root, zero } => {
                zero_state(Writer::of(MASTERCHAIN_INFO).block(last).raw(state_root), zero)
            }
            Self::MasterchainInfoExt { last, time, now, state_root, zero } => {
                let head = Writer::of(MASTERCHAIN_INFO_EXT)
                    .u32(0)
                    .u32(SERVER_VERSION)
                    .u64(SERVER_CAPABILITIES)
                    .block(last)
                    .u32(*time)
                    .u32(*now);
                zero_state(head.raw(state_root), zero)
            }
            Self::Time(now) => Writer::of(CURRENT_TIME).u32(*now),
            Self::Version { now } => {
                Writer::of(VERSION).u32(0).u32(SERVER_VERSION).u64(SERVER_CAPABILITIES).u32(*now)
            }
            Self::Block { id, data } => Writer::of(BLOCK_DATA).block(id).bytes(data),
            Self::BlockHeader { id, proof } => {
                Writer::of(BLOCK_HEADER).block(id).u32(0).bytes(proof)
            }
            Self::Sent { status } => Writer::of(SEND_STATUS).u32(*status),
            Self::AccountState(answer) => Writer::of(ACCOUNT_STATE)
                .block(&answer.block)
                .block(&answer.shard)
                .bytes(&answer.shard_proof)
                .bytes(&answer.proof)
                .bytes(&answer.state),
            Self::MethodResult { account, exit_code, stack } => {
                method_result(account.as_ref(), *exit_code, stack.as_deref())
            }
            Self::ShardInfo { block, shard, proof, description } => {
                Writer::of(SHARD_INFO).block(block).block(shard).bytes(proof).bytes(description)
            }
            Self::AllShardsInfo { block, proof, shards } => {
                Writer::of(ALL_SHARDS_INFO).block(block).bytes(proof).bytes(shards)
            }
            Self::Transactions { blocks, transactions } => {
                let count = u32::try_from(blocks.len()).unwrap_or(0);
                let list = Writer::of(TRANSACTION_LIST).u32(count);
                blocks.iter().fold(list, Writer::block).bytes(transactions)
            }
            Self::Config { block, state_proof, config_proof } => {
                Writer::of(CONFIG_INFO).u32(0).block(block).bytes(state_proof).bytes(config_proof)
            }
            Self::NoLibraries => Writer::of(LIBRARY_RESULT).u32(0),
        }
        .0
    }

    /// From the bytes inside a [`Envelope::Answer`]. Answers that our client never asks for are
    /// not read.
    ///
    /// # Errors
    ///
    /// When they are no such answer.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let reader = &mut reader;
        let answer = match reader.u32()? {
            ERROR => Self::Failed {
                code: reader.i32()?,
                message: String::from_utf8_lossy(reader.bytes()?).chars().take(1_000).collect(),
            },
            MASTERCHAIN_INFO => Self::MasterchainInfo {
                last: reader.block()?,
                state_root: reader.take()?,
                zero: read_zero_state(reader)?,
            },
            CURRENT_TIME => Self::Time(reader.u32()?),
            BLOCK_DATA => Self::Block { id: reader.block()?, data: reader.bytes()?.to_vec() },
            BLOCK_HEADER => {
                let id = reader.block()?;
                reader.u32()?;
                Self::BlockHeader { id, proof: reader.bytes()?.to_vec() }
            }
            SEND_STATUS => Self::Sent { status: reader.u32()? },
            ACCOUNT_STATE => Self::AccountState(AccountAnswer {
                block: reader.block()?,
                shard: reader.block()?,
                shard_proof: reader.bytes()?.to_vec(),
                proof: reader.bytes()?.to_vec(),
                state: reader.bytes()?.to_vec(),
            }),
            TRANSACTION_LIST => {
                let count = reader.count(BLOCK_BYTES)?;
                let blocks = (0..count).map(|_| reader.block()).collect::<Result<_, _>>()?;
                Self::Transactions { blocks, transactions: reader.bytes()?.to_vec() }
            }
            CONFIG_INFO => {
                reader.u32()?;
                Self::Config {
                    block: reader.block()?,
                    state_proof: reader.bytes()?.to_vec(),
                    config_proof: reader.bytes()?.to_vec(),
                }
            }
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(answer)
    }
}

fn method_result(account: Option<&AccountAnswer>, exit_code: i32, stack: Option<&[u8]>) -> Writer {
    let mode = u32::from(account.is_some()) | (u32::from(stack.is_some()) << 2);
    let nowhere = BlockId::default();
    let (block, shard) = account.map_or((&nowhere, &nowhere), |a| (&a.block, &a.shard));
    let mut result = Writer::of(METHOD_RESULT).u32(mode).block(block).block(shard);
    if let Some(account) = account {
        result = result.bytes(&account.shard_proof).bytes(&account.proof);
    }
    result = result.i32(exit_code);
    match stack {
        Some(stack) => result.bytes(stack),
        None => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tycho_types::cell::HashBytes;
    use tycho_types::models::ShardIdent;

    fn block(seqno: u32) -> BlockId {
        BlockId {
            shard: ShardIdent::MASTERCHAIN,
            seqno,
            root_hash: HashBytes([1; 32]),
            file_hash: HashBytes([2; 32]),
        }
    }

    #[test]
    fn every_question_is_read_as_it_was_asked() {
        let account = TonAddress { workchain: -1, hash: [5; 32] };
        for query in [
            Query::MasterchainInfo,
            Query::MasterchainInfoExt,
            Query::Time,
            Query::Version,
            Query::Block(block(1)),
            Query::BlockHeader(block(2)),
            Query::Send(vec![7; 300]),
            Query::AccountState { block: block(3), account },
            Query::RunMethod { mode: 7, block: block(3), account, method: 85_143, stack: vec![1] },
            Query::ShardInfo { block: block(3), workchain: 0 },
            Query::AllShardsInfo(block(4)),
            Query::Transactions { count: 16, account, lt: 9, hash: [3; 32] },
            Query::LookUp { workchain: -1, shard: 1 << 63, by: Lookup::Number(8) },
            Query::LookUp { workchain: 0, shard: 1 << 63, by: Lookup::LogicalTime(8) },
            Query::LookUp { workchain: 0, shard: 1 << 63, by: Lookup::Time(8) },
            Query::Config { block: block(5), parameters: None },
            Query::Config { block: block(5), parameters: Some(vec![19, 21]) },
            Query::Libraries,
        ] {
            let asked = Asked { wait: None, query: query.clone() };
            assert_eq!(Asked::decode(&query.encode()), Ok(asked));
            let waiting = Writer::of(WAIT).u32(9).u32(1_000).raw(&query.encode()).0;
            assert_eq!(Asked::decode(&waiting), Ok(Asked { wait: Some((9, 1_000)), query }));
        }
    }

    #[test]
    fn every_answer_that_we_ask_for_is_read_as_it_was_given() {
        let zero = ZeroState { root_hash: [8; 32], file_hash: [9; 32] };
        let account = AccountAnswer {
            block: block(1),
            shard: block(2),
            shard_proof: vec![1; 400],
            proof: vec![2; 5],
            state: Vec::new(),
        };
        for answer in [
            Answer::Failed { code: -400, message: "no".to_owned() },
            Answer::MasterchainInfo { last: block(1), state_root: [1; 32], zero },
            Answer::Time(7),
            Answer::Block { id: block(1), data: vec![4; 999] },
            Answer::BlockHeader { id: block(1), proof: vec![4; 3] },
            Answer::Sent { status: 1 },
            Answer::AccountState(account),
            Answer::Transactions { blocks: vec![block(1), block(2)], transactions: vec![3; 77] },
            Answer::Config { block: block(1), state_proof: vec![1], config_proof: vec![2] },
        ] {
            assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0_usize..16) {
            let _ = Envelope::decode(&bytes);
            let _ = Asked::decode(&bytes);
            let _ = Answer::decode(&bytes);
            let constructors = [ADNL_QUERY, ADNL_ANSWER, ERROR, MASTERCHAIN_INFO, ACCOUNT_STATE,
                TRANSACTION_LIST, CONFIG_INFO, WAIT, GET_CONFIG_PARAMS, LOOKUP_BLOCK, GET_LIBRARIES,
                RUN_METHOD, BLOCK_HEADER, BLOCK_DATA, SEND_MESSAGE, GET_TRANSACTIONS];
            let bytes = Writer::of(constructors[at]).raw(&bytes).0;
            let _ = Envelope::decode(&bytes);
            let _ = Asked::decode(&bytes);
            let _ = Answer::decode(&bytes);
        }
    }
}
