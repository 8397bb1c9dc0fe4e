//! The liteserver's methods on the embedded chain.
//!
//! Owns: what each question asks the ledger, and the codes of refusals.
//! Must not: read or write TL, or keep connections.

use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::identity::TonAddress;
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, HashBytes};
use tycho_types::error::Error as CellError;
use tycho_types::models::{BlockId, ShardIdent};

use super::proofs;
use crate::embedded::{EmbeddedLedger, Pair};
use crate::get_method::{self, GetMethodError};
use crate::liteserver::api::{AccountAnswer, Answer, Asked, Lookup, Query};
use crate::message::Message;
use crate::port::{Ledger as _, LedgerError, Page};

/// Codes as the C++ liteserver has them (`common/errorcode.h`).
const NOT_READY: i32 = 651;
const TIMED_OUT: i32 = 652;
const FAILED: i32 = 602;
const UNREADABLE: i32 = 621;
/// What it says to a client that asks too much.
pub(super) const TOO_MANY: i32 = 228;
/// And about a message that the contract does not take.
const NOT_ACCEPTED: i32 = 0;

/// Transactions in one answer.
const PAGE: u32 = 16;
/// How long a client may have us wait for a block.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How often we look meanwhile; about as often as the real network makes blocks.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// The exit code of a get method on an account without code.
const EXIT_CODE_NO_CODE: i32 = -256;

pub(super) struct Refusal {
    code: i32,
    message: String,
}

fn refuse(code: i32, message: &str) -> Refusal {
    Refusal { code, message: message.to_owned() }
}

impl From<CellError> for Refusal {
    fn from(error: CellError) -> Self {
        tracing::error!(%error, "a proof could not be made");
        refuse(FAILED, "the proof cannot be made")
    }
}

impl From<LedgerError> for Refusal {
    fn from(error: LedgerError) -> Self {
        match error {
            // In the words of the C++ liteserver, which clients look into for the exit code.
            LedgerError::NotAccepted { exit_code } => Self {
                code: NOT_ACCEPTED,
                message: format!(
                    "cannot apply external message to current state : External message was not \
                     accepted\nCannot run message on account: inbound external message rejected \
                     by transaction:\nexitcode={}, steps=0, gas_used=0\n",
                    exit_code.unwrap_or(-1)
                ),
            },
            LedgerError::InvalidMessage(_) => refuse(UNREADABLE, &error.to_string()),
            LedgerError::Full | LedgerError::RateLimited => refuse(TOO_MANY, "try again later"),
            other @ (LedgerError::Unreachable(_)
            | LedgerError::ServerFailed { .. }
            | LedgerError::BadAnswer { .. }
            | LedgerError::NoAgreement { .. }
            | LedgerError::OutOfDate { .. }
            | LedgerError::LiteserverRefused { .. }
            | LedgerError::OtherNetwork { .. }
            | LedgerError::NoFaucet
            | LedgerError::FaucetEmpty
            | LedgerError::Storage(_)
            | LedgerError::Damaged { .. }
            | LedgerError::Execution(_)
            | LedgerError::Stopped) => {
                tracing::error!(error = &other as &dyn std::error::Error, "a question failed");
                refuse(FAILED, "the ledger failed; its operator's log says why")
            }
        }
    }
}

/// Answers a question.
pub(super) async fn answer(ledger: &EmbeddedLedger, asked: Asked) -> Answer {
    let found = async {
        if let Some((seqno, milliseconds)) = asked.wait {
            wait(ledger, seqno, Duration::from_millis(milliseconds.into())).await?;
        }
        dispatch(ledger, asked.query).await
    };
    found.await.unwrap_or_else(|Refusal { code, message }| Answer::Failed { code, message })
}

async fn wait(ledger: &EmbeddedLedger, seqno: u32, limit: Duration) -> Result<(), Refusal> {
    let until = tokio::time::Instant::now() + limit.min(LONGEST_WAIT);
    while ledger.newest_block().await?.sealed.seqno < seqno {
        if tokio::time::Instant::now() >= until {
            return Err(refuse(TIMED_OUT, "timeout"));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

async fn dispatch(ledger: &EmbeddedLedger, query: Query) -> Result<Answer, Refusal> {
    match query {
        Query::MasterchainInfo => {
            let pair = ledger.newest_block().await?;
            Ok(Answer::MasterchainInfo {
                last: pair.sealed.master_id(),
                state_root: pair.master_state.repr_hash().0,
                zero: ledger.first_state(),
            })
        }
        Query::MasterchainInfoExt => {
            let pair = ledger.newest_block().await?;
            Ok(Answer::MasterchainInfoExt {
                last: pair.sealed.master_id(),
                time: pair.sealed.time,
                now: now(ledger).await?,
                state_root: pair.master_state.repr_hash().0,
                zero: ledger.first_state(),
            })
        }
        Query::Time => Ok(Answer::Time(now(ledger).await?)),
        Query::Version => Ok(Answer::Version { now: now(ledger).await? }),
        Query::Block(id) => {
            let data = Boc::encode(block(ledger, &id).await?);
            Ok(Answer::Block { id, data })
        }
        Query::BlockHeader(id) => {
            let header = proofs::header(&block(ledger, &id).await?)?;
            Ok(Answer::BlockHeader { id, proof: Boc::encode(header) })
        }
        Query::LookUp { workchain, shard, by } => look_up(ledger, workchain, shard, by).await,
        Query::Send(bytes) => {
            let message = Message::from_boc(&bytes).map_err(LedgerError::InvalidMessage)?;
            ledger.send(message).await?;
            Ok(Answer::Sent { status: 1 })
        }
        Query::AccountState { block, account } => {
            let pair = pair(ledger, &block).await?;
            Ok(Answer::AccountState(account_state(&pair, block, account)?.0))
        }
        Query::RunMethod { mode, block, account, method, stack } => {
            run_method(ledger, mode, block, account, method, &stack).await
        }
        Query::ShardInfo { block, workchain } => shard_info(ledger, block, workchain).await,
        Query::AllShardsInfo(id) => {
            let pair = master(ledger, &id).await?;
            let proof = proofs::bag(&[
                proofs::header(&pair.master_block)?,
                proofs::shards(&pair.master_state)?,
            ]);
            let shards = Boc::encode(proofs::shard_hashes(&pair.master_state)?);
            Ok(Answer::AllShardsInfo { block: id, proof, shards })
        }
        Query::Transactions { count, account, lt, hash } => {
            transactions(ledger, count, account, lt, hash).await
        }
        Query::Config { block, parameters } => {
            let pair = master(ledger, &block).await?;
            let config = proofs::config(&pair.master_state, parameters.as_deref())?;
            Ok(Answer::Config {
                block,
                state_proof: Boc::encode(proofs::header(&pair.master_block)?),
                config_proof: Boc::encode(config),
            })
        }
        Query::Libraries => Ok(Answer::NoLibraries),
    }
}

async fn now(ledger: &EmbeddedLedger) -> Result<u32, Refusal> {
    Ok(u32::try_from(ledger.now().await?.as_unix_secs()).unwrap_or(u32::MAX))
}

/// The block pair with states in which `id` is.
async fn pair(ledger: &EmbeddedLedger, id: &BlockId) -> Result<Arc<Pair>, Refusal> {
    // The highest number stands for the newest block, as in the C++ liteserver.
    if id.seqno == u32::MAX {
        return Ok(ledger.newest_block().await?);
    }
    let pair = ledger.block_with_states(id.seqno);
    let pair =
        pair.ok_or_else(|| refuse(NOT_READY, "state of this block is not kept (any more)"))?;
    if *id == pair.sealed.master_id() || *id == pair.sealed.shard_id() {
        Ok(pair)
    } else {
        Err(refuse(NOT_READY, "block not found"))
    }
}

async fn master(ledger: &EmbeddedLedger, id: &BlockId) -> Result<Arc<Pair>, Refusal> {
    if !id.shard.is_masterchain() {
        return Err(refuse(UNREADABLE, "a masterchain block is needed here"));
    }
    pair(ledger, id).await
}

async fn block(ledger: &EmbeddedLedger, id: &BlockId) -> Result<Cell, Refusal> {
    let found = ledger.blocks(id.seqno).await?;
    let (master, shard) = found.ok_or_else(|| refuse(NOT_READY, "block not found"))?;
    let block = if id.shard.is_masterchain() { master } else { shard };
    if *block.repr_hash() == id.root_hash {
        Ok(block)
    } else {
        Err(refuse(NOT_READY, "block not found"))
    }
}

async fn look_up(
    ledger: &EmbeddedLedger,
    workchain: i32,
    shard: u64,
    by: Lookup,
) -> Result<Answer, Refusal> {
    let shard = ShardIdent::new(workchain, shard);
    let shard = shard.filter(|shard| shard.is_full() && matches!(workchain, 0 | -1));
    let shard = shard.ok_or_else(|| refuse(NOT_READY, "this chain has no such shard"))?;
    let sealed = ledger.find_block(by).await?;
    let sealed = sealed.ok_or_else(|| refuse(NOT_READY, "block not found"))?;
    let id = if shard.is_masterchain() { sealed.master_id() } else { sealed.shard_id() };
    let proof = Boc::encode(proofs::header(&block(ledger, &id).await?)?);
    Ok(Answer::BlockHeader { id, proof })
}

fn account_state(
    pair: &Pair,
    block: BlockId,
    address: TonAddress,
) -> Result<(AccountAnswer, Option<tycho_types::models::ShardAccount>), Refusal> {
    let hash = HashBytes(address.hash);
    let (shard, shard_block, state) = match address.workchain {
        -1 => (pair.sealed.master_id(), &pair.master_block, &pair.master_state),
        0 => (pair.sealed.shard_id(), &pair.shard_block, &pair.shard_state),
        _ => return Err(refuse(NOT_READY, "this chain has no such workchain")),
    };
    let block = if block.seqno == u32::MAX { pair.sealed.master_id() } else { block };
    // A block needs no proof that it is itself.
    let shard_proof = if block == shard {
        Vec::new()
    } else {
        proofs::bag(&[proofs::header(&pair.master_block)?, proofs::shards(&pair.master_state)?])
    };
    let (proof, found) = proofs::account(state, hash)?;
    let proof = proofs::bag(&[proofs::header(shard_block)?, proof]);
    let state = found.as_ref().map(|found| Boc::encode(found.account.inner()));
    let answer =
        AccountAnswer { block, shard, shard_proof, proof, state: state.unwrap_or_default() };
    Ok((answer, found))
}

async fn run_method(
    ledger: &EmbeddedLedger,
    mode: u32,
    block: BlockId,
    address: TonAddress,
    method: u32,
    stack: &[u8],
) -> Result<Answer, Refusal> {
    let pair = pair(ledger, &block).await?;
    let (account, found) = account_state(&pair, block, address)?;
    let stack = get_method::read_stack(stack);
    let stack = stack.ok_or_else(|| refuse(UNREADABLE, "the arguments cannot be read"))?;
    let (exit_code, stack) = match ledger.run_on(found, pair.sealed.time, method, stack).await? {
        Ok(output) => (output.exit_code, get_method::write_stack(output.stack)),
        Err(GetMethodError::NoCode) => (EXIT_CODE_NO_CODE, None),
        Err(GetMethodError::BadArgument) => {
            return Err(refuse(UNREADABLE, "the arguments cannot be read"));
        }
        Err(GetMethodError::BadConfig) => return Err(refuse(FAILED, "the parameters are bad")),
    };
    Ok(Answer::MethodResult {
        account: (mode & 1 != 0).then_some(account),
        exit_code,
        stack: (mode & 4 != 0).then(|| stack.map(Boc::encode).unwrap_or_default()),
    })
}

async fn shard_info(
    ledger: &EmbeddedLedger,
    block: BlockId,
    workchain: i32,
) -> Result<Answer, Refusal> {
    let pair = master(ledger, &block).await?;
    if workchain != 0 {
        return Err(refuse(NOT_READY, "this chain has no such workchain"));
    }
    let list = proofs::shard_hashes(&pair.master_state)?;
    let shards = list.parse::<tycho_types::models::ShardHashes>()?;
    let tree = shards.get_workchain_shards(0)?;
    let tree = tree.ok_or_else(|| refuse(FAILED, "the basechain is missing"))?;
    Ok(Answer::ShardInfo {
        block,
        shard: pair.sealed.shard_id(),
        proof: proofs::bag(&[
            proofs::header(&pair.master_block)?,
            proofs::shards(&pair.master_state)?,
        ]),
        description: Boc::encode(tree.into_root()),
    })
}

async fn transactions(
    ledger: &EmbeddedLedger,
    count: u32,
    account: TonAddress,
    lt: u64,
    hash: [u8; 32],
) -> Result<Answer, Refusal> {
    let limit = u16::try_from(count.clamp(1, PAGE)).unwrap_or(1);
    let before = crate::TransactionId { lt: lt.saturating_add(1), hash: [0; 32] };
    let found = ledger.transactions(account, Page { limit, before: Some(before) }).await?;
    if found.first().is_none_or(|first| first.id.lt != lt || first.id.hash != hash) {
        return Err(refuse(NOT_READY, "cannot locate transaction in block with specified lt"));
    }
    let mut blocks = Vec::new();
    for transaction in &found {
        let sealed = ledger.find_block(Lookup::LogicalTime(transaction.id.lt)).await?;
        let sealed = sealed.unwrap_or_else(|| ledger.zero_state().sealed.clone());
        blocks.push(if account.workchain == -1 { sealed.master_id() } else { sealed.shard_id() });
    }
    let roots: Vec<Cell> = found.into_iter().map(|transaction| transaction.cell).collect();
    Ok(Answer::Transactions { blocks, transactions: proofs::bag(&roots) })
}
