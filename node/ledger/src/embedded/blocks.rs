//! Blocks and shard states as TON lays them out, so that other people's software can check proofs
//! of the embedded chain: masterchain block → shard block → state → account.
//!
//! Owns: the cells of blocks and states.
//! Must not: store anything, or decide when a block is made.
//!
//! Nobody votes on an embedded chain: there is one shard of the basechain, each of its blocks is in
//! the masterchain block of the same number, and no block carries signatures. Message descriptors
//! and queues are empty; the messages are inside the transactions.

use std::collections::{BTreeMap, HashSet};

use cocoon_protocol::identity::{Network, TonAddress};
use cocoon_protocol::units::NanoTon;
use serde::{Deserialize, Serialize};
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, CellFamily as _, HashBytes, Lazy};
use tycho_types::dict::AugDict;
use tycho_types::error::Error as CellError;
use tycho_types::merkle::{MerkleUpdate, make_pruned_branch};
use tycho_types::models::{
    AccountBlock, AccountBlocks, Block, BlockExtra, BlockId, BlockInfo, BlockRef, BlockchainConfig,
    CurrencyCollection, DepthBalanceInfo, GlobalCapabilities, GlobalVersion, HashUpdate,
    McBlockExtra, McStateExtra, ShardAccount, ShardAccounts, ShardDescription, ShardHashes,
    ShardIdent, ShardStateUnsplit, Transaction, ValidatorInfo, ValueFlow,
};

/// The version that blocks carry: the one whose rules the embedded machine executes.
const GLOBAL_VERSION: u32 = 12;

/// A block as others refer to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) end_lt: u64,
    pub(crate) seqno: u32,
    pub(crate) root_hash: [u8; 32],
    pub(crate) file_hash: [u8; 32],
}

impl Reference {
    fn of(cell: &Cell, seqno: u32, end_lt: u64) -> Self {
        Self {
            end_lt,
            seqno,
            root_hash: cell.repr_hash().0,
            file_hash: Boc::file_hash(Boc::encode(cell)).0,
        }
    }

    /// The full id of the block in `shard`.
    pub(crate) const fn id(&self, shard: ShardIdent) -> BlockId {
        BlockId {
            shard,
            seqno: self.seqno,
            root_hash: HashBytes(self.root_hash),
            file_hash: HashBytes(self.file_hash),
        }
    }

    const fn link(&self) -> BlockRef {
        BlockRef {
            end_lt: self.end_lt,
            seqno: self.seqno,
            root_hash: HashBytes(self.root_hash),
            file_hash: HashBytes(self.file_hash),
        }
    }
}

/// A masterchain block and the block of the basechain in it: all that is needed to name them, and
/// to build their states again from the accounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sealed {
    pub(crate) seqno: u32,
    /// Unix seconds.
    pub(crate) time: u32,
    pub(crate) start_lt: u64,
    pub(crate) end_lt: u64,
    pub(crate) master: Reference,
    pub(crate) shard: Reference,
    /// The masterchain block before this one.
    pub(crate) previous: Reference,
    /// What the faucet had given out, what had been paid in fees, and what was under way.
    pub(super) minted: NanoTon,
    pub(super) fees: NanoTon,
    pub(super) under_way: NanoTon,
    /// What the basechain's part of the state says about the last block.
    fees_of_block: NanoTon,
}

impl Sealed {
    pub(crate) const fn master_id(&self) -> BlockId {
        self.master.id(ShardIdent::MASTERCHAIN)
    }

    pub(crate) const fn shard_id(&self) -> BlockId {
        self.shard.id(ShardIdent::BASECHAIN)
    }
}

/// The accounts of both workchains.
#[derive(Clone, Debug)]
pub(super) struct Accounts {
    basechain: ShardAccounts,
    masterchain: ShardAccounts,
}

impl Accounts {
    pub(super) fn new() -> Self {
        Self { basechain: ShardAccounts::new(), masterchain: ShardAccounts::new() }
    }

    fn of(&mut self, workchain: i8) -> Option<&mut ShardAccounts> {
        match workchain {
            0 => Some(&mut self.basechain),
            -1 => Some(&mut self.masterchain),
            _ => None,
        }
    }

    /// Sets the state of an account. In any other workchain than these two no block has a place for
    /// it, and nothing happens.
    pub(super) fn set(
        &mut self,
        address: TonAddress,
        state: &ShardAccount,
    ) -> Result<(), CellError> {
        let Some(accounts) = self.of(address.workchain) else {
            return Ok(());
        };
        let key = HashBytes(address.hash);
        match state.load_account()? {
            Some(account) => {
                let info = DepthBalanceInfo { split_depth: 0, balance: account.balance };
                accounts.set(key, info, state)?;
            }
            None => {
                accounts.remove_raw(key)?;
            }
        }
        Ok(())
    }

    fn hash_of(&self, account: HashBytes) -> Result<HashBytes, CellError> {
        Ok(match self.basechain.get(account)? {
            Some((_, state)) => *state.account.inner().repr_hash(),
            None => *super::execute::absent()?.account.inner().repr_hash(),
        })
    }
}

/// What the next block is made of.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) time: u32,
    /// The newest logical time that the block covers.
    pub(super) end_lt: u64,
    /// Transactions of the basechain since the block before, by account and logical time.
    pub(super) transactions: BTreeMap<[u8; 32], BTreeMap<u64, Cell>>,
    pub(super) minted: NanoTon,
    pub(super) fees: NanoTon,
    pub(super) under_way: NanoTon,
}

/// A block pair with its states.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) sealed: Sealed,
    pub(crate) master_block: Cell,
    pub(crate) shard_block: Cell,
    pub(crate) master_state: Cell,
    pub(crate) shard_state: Cell,
}

impl Pair {
    /// Whether the blocks say that these are their states.
    pub(super) fn commits_to_its_states(&self) -> bool {
        let says = |block: &Cell| {
            let block = block.parse::<Block>().ok()?;
            block.load_state_update().ok().map(|update| update.new_hash)
        };
        says(&self.master_block) == Some(*self.master_state.repr_hash())
            && says(&self.shard_block) == Some(*self.shard_state.repr_hash())
    }
}

/// Builds blocks and states for one network.
#[derive(Debug)]
pub(super) struct Builder {
    pub(super) network: Network,
    pub(super) config: BlockchainConfig,
}

impl Builder {
    /// The states before the first block. They are the same for every embedded chain of a network
    /// and a version of this software. There are no blocks yet: the states stand in for them.
    pub(super) fn zero(&self) -> Result<Pair, CellError> {
        let accounts = Accounts::new();
        let mut sealed = Sealed {
            seqno: 0,
            time: 0,
            start_lt: 0,
            end_lt: 0,
            master: Reference::default(),
            shard: Reference::default(),
            previous: Reference::default(),
            minted: NanoTon::ZERO,
            fees: NanoTon::ZERO,
            under_way: NanoTon::ZERO,
            fees_of_block: NanoTon::ZERO,
        };
        let shard_state = self.shard_state(&sealed, &accounts)?;
        sealed.shard = Reference::of(&shard_state, 0, 0);
        let master_state = self.master_state(&sealed, &accounts)?;
        sealed.master = Reference::of(&master_state, 0, 0);
        Ok(Pair {
            sealed,
            master_block: master_state.clone(),
            shard_block: shard_state.clone(),
            master_state,
            shard_state,
        })
    }

    /// The states that belong to `sealed`, from the accounts of that moment: shard, masterchain.
    pub(super) fn states(
        &self,
        sealed: &Sealed,
        accounts: &Accounts,
    ) -> Result<(Cell, Cell), CellError> {
        Ok((self.shard_state(sealed, accounts)?, self.master_state(sealed, accounts)?))
    }

    /// The block pair after `last`, whose accounts were `before` and whose states are `states`
    /// (shard, masterchain).
    pub(super) fn next(
        &self,
        last: &Sealed,
        states: (&Cell, &Cell),
        before: &Accounts,
        accounts: &Accounts,
        contents: &Contents,
    ) -> Result<Pair, CellError> {
        let seqno = last.seqno.saturating_add(1);
        let mut sealed = Sealed {
            seqno,
            time: contents.time.max(last.time),
            start_lt: last.end_lt,
            end_lt: contents.end_lt.max(last.end_lt.saturating_add(1)),
            master: Reference::default(),
            shard: Reference::default(),
            previous: last.master.clone(),
            minted: contents.minted,
            fees: contents.fees,
            under_way: contents.under_way,
            fees_of_block: contents.fees.saturating_sub(last.fees),
        };
        let shard_state = self.shard_state(&sealed, accounts)?;
        let mut info = Self::info(&sealed, ShardIdent::BASECHAIN);
        info.set_prev_ref_single(&last.shard.link());
        info.master_ref = Some(Lazy::new(&last.master.link())?);
        let extra = BlockExtra {
            account_blocks: Lazy::new(&account_blocks(before, accounts, &contents.transactions)?)?,
            ..BlockExtra::default()
        };
        let flow = value_flow(last, &sealed, before, accounts);
        let shard_block = self.block(info, &flow, states.0, &shard_state, &extra)?;
        sealed.shard = Reference::of(&shard_block, seqno, sealed.end_lt);

        let master_state = self.master_state(&sealed, accounts)?;
        let mut info = Self::info(&sealed, ShardIdent::MASTERCHAIN);
        info.set_prev_ref_single(&last.master.link());
        let custom = McBlockExtra { shards: shards(&sealed)?, ..McBlockExtra::default() };
        let extra = BlockExtra { custom: Some(Lazy::new(&custom)?), ..BlockExtra::default() };
        let flow = ValueFlow {
            from_prev_block: before.masterchain.root_extra().balance.clone(),
            to_next_block: accounts.masterchain.root_extra().balance.clone(),
            ..empty_flow()
        };
        let master_block = self.block(info, &flow, states.1, &master_state, &extra)?;
        sealed.master = Reference::of(&master_block, seqno, sealed.end_lt);
        Ok(Pair { sealed, master_block, shard_block, master_state, shard_state })
    }

    fn info(sealed: &Sealed, shard: ShardIdent) -> BlockInfo {
        let mut info = BlockInfo {
            seqno: sealed.seqno,
            shard,
            gen_utime: sealed.time,
            start_lt: sealed.start_lt,
            end_lt: sealed.end_lt,
            min_ref_mc_seqno: sealed.seqno.saturating_sub(1),
            ..BlockInfo::default()
        };
        info.set_gen_software(Some(GlobalVersion {
            version: GLOBAL_VERSION,
            capabilities: GlobalCapabilities::new(0),
        }));
        info
    }

    fn block(
        &self,
        info: BlockInfo,
        flow: &ValueFlow,
        before: &Cell,
        after: &Cell,
        extra: &BlockExtra,
    ) -> Result<Cell, CellError> {
        let block = Block {
            global_id: self.network.global_id(),
            info: Lazy::new(&info)?,
            value_flow: Lazy::new(flow)?,
            state_update: Lazy::new(&state_update(before, after)?)?,
            out_msg_queue_updates: None,
            extra: Lazy::new(extra)?,
        };
        CellBuilder::build_from(&block)
    }

    fn shard_state(&self, sealed: &Sealed, accounts: &Accounts) -> Result<Cell, CellError> {
        let master_ref = (sealed.seqno > 0).then(|| sealed.previous.link());
        CellBuilder::build_from(&ShardStateUnsplit {
            shard_ident: ShardIdent::BASECHAIN,
            accounts: Lazy::new(&accounts.basechain)?,
            total_balance: accounts.basechain.root_extra().balance.clone(),
            total_validator_fees: CurrencyCollection::new(sealed.fees_of_block.as_nano().into()),
            master_ref,
            ..self.state(sealed)?
        })
    }

    fn master_state(&self, sealed: &Sealed, accounts: &Accounts) -> Result<Cell, CellError> {
        let custom = McStateExtra {
            shards: shards(sealed)?,
            config: self.config.clone(),
            validator_info: ValidatorInfo {
                validator_list_hash_short: 0,
                catchain_seqno: 0,
                nx_cc_updated: false,
            },
            prev_blocks: AugDict::new(),
            after_key_block: false,
            last_key_block: None,
            block_create_stats: None,
            global_balance: accounts.basechain.root_extra().balance.clone(),
        };
        CellBuilder::build_from(&ShardStateUnsplit {
            shard_ident: ShardIdent::MASTERCHAIN,
            accounts: Lazy::new(&accounts.masterchain)?,
            total_balance: accounts.masterchain.root_extra().balance.clone(),
            custom: Some(Lazy::new(&custom)?),
            ..self.state(sealed)?
        })
    }

    /// What both states have in common.
    fn state(&self, sealed: &Sealed) -> Result<ShardStateUnsplit, CellError> {
        // `OutMsgQueueInfo`: no messages (with 64 bits of augmentation), nothing processed, no
        // extra part.
        let mut queue = CellBuilder::new();
        queue.store_zeros(1 + 64 + 1 + 1)?;
        Ok(ShardStateUnsplit {
            global_id: self.network.global_id(),
            seqno: sealed.seqno,
            gen_utime: sealed.time,
            gen_lt: sealed.end_lt,
            min_ref_mc_seqno: sealed.seqno.saturating_sub(1),
            out_msg_queue_info: queue.build()?,
            ..ShardStateUnsplit::default()
        })
    }
}

fn shards(sealed: &Sealed) -> Result<ShardHashes, CellError> {
    let description = ShardDescription {
        seqno: sealed.seqno,
        reg_mc_seqno: sealed.seqno,
        start_lt: sealed.start_lt,
        end_lt: sealed.end_lt,
        root_hash: HashBytes(sealed.shard.root_hash),
        file_hash: HashBytes(sealed.shard.file_hash),
        before_split: false,
        before_merge: false,
        want_split: false,
        want_merge: false,
        nx_cc_updated: false,
        next_catchain_seqno: 0,
        next_validator_shard: ShardIdent::PREFIX_FULL,
        min_ref_mc_seqno: sealed.seqno.saturating_sub(1),
        gen_utime: sealed.time,
        split_merge_at: None,
        fees_collected: CurrencyCollection::new(sealed.fees_of_block.as_nano().into()),
        funds_created: CurrencyCollection::ZERO,
    };
    ShardHashes::from_shards([(&ShardIdent::BASECHAIN, &description)])
}

fn account_blocks(
    before: &Accounts,
    after: &Accounts,
    transactions: &BTreeMap<[u8; 32], BTreeMap<u64, Cell>>,
) -> Result<AccountBlocks, CellError> {
    let mut blocks = AccountBlocks::new();
    for (account, transactions) in transactions {
        let account = HashBytes(*account);
        let mut listed = AugDict::<u64, CurrencyCollection, Lazy<Transaction>>::new();
        for (lt, cell) in transactions {
            let fees = cell.parse::<Transaction>()?.total_fees;
            listed.set(*lt, fees, Lazy::from_raw(cell.clone())?)?;
        }
        let fees = listed.root_extra().clone();
        let change = HashUpdate { old: before.hash_of(account)?, new: after.hash_of(account)? };
        let block =
            AccountBlock { account, transactions: listed, state_update: Lazy::new(&change)? };
        blocks.set(account, fees, block)?;
    }
    Ok(blocks)
}

const fn empty_flow() -> ValueFlow {
    const NOTHING: CurrencyCollection = CurrencyCollection::ZERO;
    ValueFlow {
        from_prev_block: NOTHING,
        to_next_block: NOTHING,
        imported: NOTHING,
        exported: NOTHING,
        fees_collected: NOTHING,
        burned: NOTHING,
        fees_imported: NOTHING,
        recovered: NOTHING,
        created: NOTHING,
        minted: NOTHING,
    }
}

/// The faucet's money comes in like a message from elsewhere, and so does what was under way.
fn value_flow(last: &Sealed, sealed: &Sealed, before: &Accounts, after: &Accounts) -> ValueFlow {
    let nano = |amount: NanoTon| u128::from(amount.as_nano());
    let minted = nano(sealed.minted.saturating_sub(last.minted));
    let delivered = nano(last.under_way.saturating_sub(sealed.under_way));
    let under_way = nano(sealed.under_way.saturating_sub(last.under_way));
    ValueFlow {
        from_prev_block: before.basechain.root_extra().balance.clone(),
        to_next_block: after.basechain.root_extra().balance.clone(),
        imported: CurrencyCollection::new(minted.saturating_add(delivered)),
        exported: CurrencyCollection::new(under_way),
        fees_collected: CurrencyCollection::new(nano(sealed.fees_of_block)),
        ..empty_flow()
    }
}

/// The change from one state to the next: what is new in full, and of the old what leads there.
fn state_update(before: &Cell, after: &Cell) -> Result<MerkleUpdate, CellError> {
    if before.repr_hash() == after.repr_hash() {
        let pruned = make_pruned_branch(before.as_ref(), 0, Cell::empty_context())?;
        return Ok(MerkleUpdate {
            old_hash: *before.repr_hash(),
            new_hash: *after.repr_hash(),
            old_depth: before.repr_depth(),
            new_depth: after.repr_depth(),
            old: pruned.clone(),
            new: pruned,
        });
    }
    // Everything that the old state has may be left out of the new one.
    let known = shared_cells(before, after);
    MerkleUpdate::create(before.as_ref(), after.as_ref(), known).build()
}

/// Cells that `before` has, as far down as it takes to find all of `after` that is not new. Both
/// are walked from the top, so that the work grows with the change and not with the state.
fn shared_cells(before: &Cell, after: &Cell) -> HashSet<HashBytes> {
    let mut known = HashSet::new();
    let mut old = vec![before.clone()];
    let mut new = vec![after.clone()];
    while !new.is_empty() {
        let changed: HashSet<HashBytes> = new.iter().map(|cell| *cell.repr_hash()).collect();
        let mut deeper = Vec::new();
        for cell in &old {
            if known.insert(*cell.repr_hash()) && !changed.contains(cell.repr_hash()) {
                deeper.extend(cell.references().cloned());
            }
        }
        old = deeper;
        new.retain(|cell| !known.contains(cell.repr_hash()));
        new = new.iter().flat_map(|cell| cell.references().cloned()).collect();
    }
    known
}
