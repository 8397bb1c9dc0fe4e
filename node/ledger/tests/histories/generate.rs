//! What happens next in a history, chosen by a seed and by where the vault stands.
//!
//! Owns: the choice, and each message twice: as the model is told and as the contract is sent it.
//! Must not: know what the answer will be, but for messages that the model has no words for.

use cocoon_ledger::embedded::Arriving;
use cocoon_ledger::message::Message as External;
use cocoon_ledger::tycho_types::cell::{Cell, CellBuilder, HashBytes};
use cocoon_ledger::vault::{Deployment, message};
use cocoon_protocol::channel::settlement::{
    AllocationRequest, Command, Message, Order, Parameters, Vault,
};
use cocoon_protocol::channel::{Release, SignedVoucher, VaultPublicKey, Voucher};
use cocoon_protocol::identity::{Network, NodeId, TonAddress};
use cocoon_protocol::units::{NanoTon, Timestamp};

use crate::actors::{Actors, OWNER, PAYERS, PROVIDERS, STRANGER, TREASURY, account, payout};

pub(crate) const START: u64 = 1_795_000_000;
const DAY: u64 = 86_400;
const TON: u64 = 1_000_000_000;
/// Messages that may come again.
const REMEMBERED: usize = 8;
/// What an internal settlement has to bring: 60,000 gas and one transfer.
const INTERNAL_COST: u64 = 4_066_667;
/// What pays for its own fees, and little more.
const SMALLEST_SETTLEMENT: u64 = 4_900_000;
/// One history in so many is about draining the reserve.
const DRAINS: u64 = 80;
/// "CCC2", "CCR2", and the settlement's opcode, for messages that no client of ours would build.
const ORDER_MAGIC: u32 = 0x4343_4332;
const RELEASE_MAGIC: u32 = 0x4343_5232;
const SIGNED_COMMAND: u32 = 0x4343_0001;
const SETTLE_EXTERNAL: u32 = 0x4343_0002;

pub(crate) fn nano(nano: u64) -> NanoTon {
    NanoTon::from_nano(nano)
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_be_bytes());
        }
        bytes
    }
}

/// How a message reaches the contract.
#[derive(Clone, Debug)]
pub(crate) enum Carrier {
    External(External),
    Internal(Arriving),
}

impl Carrier {
    pub(crate) fn value(&self) -> NanoTon {
        match self {
            Self::External(_) => NanoTon::ZERO,
            Self::Internal(message) => message.value,
        }
    }

    pub(crate) fn cell(&self, vault: TonAddress) -> Cell {
        match self {
            Self::External(message) => message.cell().clone(),
            Self::Internal(message) => message.clone().cell(vault).unwrap(),
        }
    }
}

/// What the model is told.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Message(Message),
    /// It has no words for it: nothing may change, and the contract says this, where it must be this.
    Hostile(Option<i32>),
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) kind: &'static str,
    pub(crate) now: u64,
    pub(crate) said: Said,
    pub(crate) carrier: Carrier,
}

type Sent = (&'static str, Said, Carrier);

pub(crate) struct History<'a> {
    actors: &'a Actors,
    random: Random,
    pub(crate) now: u64,
    pub(crate) deployment: Deployment,
    pub(crate) vault: TonAddress,
    pub(crate) deposit: NanoTon,
    /// The same vault on another network.
    sibling: TonAddress,
    past: Vec<Sent>,
    /// Somebody burns the reserve with freight, settlement by settlement.
    is_drain: bool,
}

impl<'a> History<'a> {
    pub(crate) fn new(seed: u64, actors: &'a Actors) -> Self {
        let mut random = Random(seed);
        let is_drain = random.one_in(DRAINS);
        let unsound = !is_drain && random.one_in(50);
        let parameters = Parameters {
            client_key: actors.payers[0].public(),
            owner: OWNER,
            release_delay: match random.below(3) {
                _ if unsound => 2_592_001,
                0 => 60,
                1 => 3_600,
                _ => 21_600,
            },
            daily_cap: match random.below(3) {
                _ if is_drain => NanoTon::MAX,
                0 => NanoTon::MAX,
                1 => nano(TON * 9 / 10),
                _ => nano(TON / 3),
            },
            fee_basis_points: if is_drain { 0 } else { [0, 1, 250, 1_000][random.index(4)] },
            treasury: TREASURY,
        };
        let most = if random.one_in(3) { 20 * TON } else { 3 * TON };
        let deployment = Deployment { parameters, network: Network::Devnet, salt: seed };
        let sibling = Deployment { network: Network::Testnet, ..deployment.clone() };
        Self {
            actors,
            now: START + random.below(DAY),
            vault: deployment.address().unwrap(),
            sibling: sibling.address().unwrap(),
            deposit: nano(TON / 5 + random.below(most)),
            deployment,
            random,
            past: Vec::new(),
            is_drain,
        }
    }

    /// The deposit that brings the vault to life.
    pub(crate) fn opening(&self) -> Arriving {
        Arriving {
            from: STRANGER,
            value: self.deposit,
            bounce: false,
            init: Some(self.deployment.state_init().unwrap()),
            body: Cell::default(),
        }
    }

    /// Messages in the history, after the deposit.
    pub(crate) const fn length(&self) -> usize {
        if self.is_drain { 50 } else { 20 }
    }

    pub(crate) fn next(&mut self, vault: &Vault) -> Step {
        let drains = self.is_drain && !self.random.one_in(12);
        if !drains {
            self.pass_time(vault);
        }
        let sent = match self.random.below(22) {
            _ if drains => self.drain(vault),
            0..=7 => self.order(vault),
            8..=9 => self.owner_command(vault),
            10..=13 => self.settle_external(vault),
            14..=15 => self.settle_internal(vault),
            16 => sent("sweep", Message::Sweep, self.external(message::sweep().unwrap())),
            17 => self.top_up(),
            18..=19 if !self.past.is_empty() => {
                let again = self.random.index(self.past.len());
                let (kind, said, carrier) = self.past[again].clone();
                // By now there may be other reasons to refuse what is refused anyway.
                let said =
                    if matches!(said, Said::Hostile(_)) { Said::Hostile(None) } else { said };
                (kind, said, carrier)
            }
            18..=20 => self.hostile(vault),
            _ => self.rotate(vault),
        };
        if self.past.len() == REMEMBERED {
            self.past.remove(0);
        }
        self.past.push(sent.clone());
        let (kind, said, carrier) = sent;
        Step { kind, now: self.now, said, carrier }
    }

    /// Mostly little; often to a second at which something changes.
    fn pass_time(&mut self, vault: &Vault) {
        let later = match self.random.below(10) {
            0..=4 => self.now,
            5 => self.now + self.random.below(100),
            6 => (self.now / DAY + 1) * DAY - self.random.below(2),
            7 | 8 => {
                let ends = vault.allocations().filter_map(|(_, it)| it.unlock_at);
                let ends: Vec<u64> = ends.map(|at| at.as_unix_secs()).collect();
                if ends.is_empty() {
                    self.now
                } else {
                    ends[self.random.index(ends.len())] - self.random.below(2)
                }
            }
            _ => self.now + self.random.below(9_000),
        };
        self.now = self.now.max(later);
    }

    fn external(&self, body: Cell) -> Carrier {
        Carrier::External(External::external(self.vault, None, body).unwrap())
    }

    fn internal(from: TonAddress, value: u64, body: Cell) -> Carrier {
        Carrier::Internal(Arriving { from, value: nano(value), bounce: true, init: None, body })
    }

    /// Mostly one that has an allocation, where any has.
    fn provider(&mut self, vault: &Vault) -> (usize, NodeId) {
        let known = |index: &usize| vault.allocation(&self.actors.providers[*index].id()).is_some();
        let known: Vec<usize> = (0..PROVIDERS).filter(known).collect();
        let any = known.is_empty() || self.random.one_in(4);
        let index =
            if any { self.random.index(PROVIDERS) } else { known[self.random.index(known.len())] };
        (index, self.actors.providers[index].id())
    }

    /// Amounts around what matters: nothing, a little, exactly what is free, a little more.
    fn amount(&mut self, vault: &Vault) -> NanoTon {
        let free = vault.free().as_nano();
        nano(match self.random.below(16) {
            0 => 0,
            1 => 1,
            2 => free,
            3 => free.saturating_sub(4_000_000 + self.random.below(400_000)),
            4 => free / 2,
            5 => TON / 3,
            _ => self.random.below((free / 3).max(TON / 3)),
        })
    }

    fn request(&mut self, vault: &Vault) -> AllocationRequest {
        let (index, provider) = self.provider(vault);
        let amount = self.amount(vault);
        let mut request = AllocationRequest { provider, payout: payout(index), amount };
        match self.random.below(40) {
            0 => request.provider = NodeId::from_bytes([0; 32]),
            1 => request.provider = NodeId::from_bytes(identity()),
            2 => request.payout = self.vault,
            3 => request.payout = account(0),
            4..=6 => request.payout = account(0x60),
            _ => {}
        }
        request
    }

    fn command(&mut self, vault: &Vault) -> Command {
        let (index, provider) = self.provider(vault);
        match self.random.below(24) {
            0..=7 => {
                let mut request = self.request(vault);
                if self.random.one_in(40) {
                    request.amount = NanoTon::MAX;
                }
                Command::Allocate(request)
            }
            8..=10 => {
                let length = 1 + self.random.index(4);
                Command::Rebalance((0..length).map(|_| self.request(vault)).collect())
            }
            11..=13 => Command::RequestRelease(provider),
            14..=16 => {
                let releasing = vault.allocations().filter(|(_, it)| it.unlock_at.is_some());
                let releasing: Vec<NodeId> = releasing.map(|(id, _)| *id).collect();
                let any = releasing.is_empty() || self.random.one_in(4);
                let chosen =
                    if any { provider } else { releasing[self.random.index(releasing.len())] };
                Command::FinalizeRelease(chosen)
            }
            17..=19 => {
                let voucher = self.voucher(vault, index);
                let release = Release {
                    vault: self.vault,
                    provider,
                    epoch: voucher.epoch,
                    cumulative: voucher.cumulative,
                };
                let signer = if self.random.one_in(10) { (index + 1) % PROVIDERS } else { index };
                Command::Release(release.sign(&self.actors.providers[signer]))
            }
            20..=22 => Command::Withdraw(self.amount(vault)),
            _ => Command::Close,
        }
    }

    fn order(&mut self, vault: &Vault) -> Sent {
        let command = self.command(vault);
        self.order_of(vault, command)
    }

    fn order_of(&mut self, vault: &Vault, command: Command) -> Sent {
        let is_release = matches!(command, Command::Release(_));
        let to = if self.random.one_in(30) && !is_release { self.sibling } else { self.vault };
        let seqno = match self.random.below(30) {
            0 => vault.seqno() + 1,
            1 => vault.seqno().saturating_sub(1),
            _ => vault.seqno(),
        };
        let valid_until = match self.random.below(30) {
            0 => self.now - 1,
            1..=4 => self.now,
            _ => self.now + 60,
        };
        let valid_until = Timestamp::from_unix_secs(valid_until);
        let key = if self.random.one_in(30) {
            &self.actors.payers[self.random.index(PAYERS)]
        } else {
            self.actors.payer(vault.key())
        };
        let body = message::order(to, seqno, valid_until, &command, key).unwrap();
        let kind = match command {
            Command::Allocate(_) => "allocate",
            Command::Rebalance(_) => "rebalance",
            Command::RequestRelease(_) => "request release",
            Command::FinalizeRelease(_) => "finalize release",
            Command::Release(_) => "release",
            Command::Withdraw(_) => "withdraw",
            Command::Close => "close",
            // The hot key never may.
            Command::RotateKey(_) => "hostile",
        };
        let order = Order { vault: to, seqno, valid_until, command, signer: key.public() };
        sent(kind, Message::Order(order), self.external(body))
    }

    fn owner_command(&mut self, vault: &Vault) -> Sent {
        let command = self.command(vault);
        self.command_of_owner(command, "owner's command")
    }

    fn command_of_owner(&mut self, command: Command, kind: &'static str) -> Sent {
        let from = if self.random.one_in(6) { STRANGER } else { OWNER };
        let body = message::owner_command(&command).unwrap();
        let carrier = Self::internal(from, TON / 10, body);
        sent(kind, Message::OwnerCommand { from, command }, carrier)
    }

    fn rotate(&mut self, vault: &Vault) -> Sent {
        let key = match self.random.below(20) {
            0 => VaultPublicKey::from_bytes([0; 32]),
            1 => VaultPublicKey::from_bytes(identity()),
            // Never to the thief's.
            _ => self.actors.payers[self.random.index(PAYERS - 1)].public(),
        };
        if self.random.one_in(6) {
            return self.order_of(vault, Command::RotateKey(key));
        }
        self.command_of_owner(Command::RotateKey(key), "rotate")
    }

    fn voucher(&mut self, vault: &Vault, provider: usize) -> Voucher {
        let provider = self.actors.providers[provider].id();
        let known = vault.allocation(&provider).copied();
        let (epoch, limit, paid) =
            known.map_or((1, TON / 4, 0), |it| (it.epoch, it.limit.as_nano(), it.paid.as_nano()));
        let epoch = match self.random.below(20) {
            0 => epoch + 1,
            1 => epoch.saturating_sub(1),
            _ => epoch,
        };
        let cumulative = match self.random.below(16) {
            0 => paid,
            1 | 2 => limit,
            3 => limit.saturating_add(1),
            4 => u64::MAX,
            5 => self.random.below(paid + 1),
            6 => paid + 1 + self.random.below(6_000_000),
            _ => paid + self.random.below(limit.saturating_sub(paid) + 1),
        };
        Voucher {
            vault: self.vault,
            provider,
            epoch,
            cumulative: nano(cumulative),
            receipts_root: self.random.bytes(),
        }
    }

    fn signed_voucher(&mut self, vault: &Vault, provider: usize) -> SignedVoucher {
        let mut voucher = self.voucher(vault, provider);
        if self.random.one_in(25) {
            voucher.vault = self.sibling;
        }
        let key = if self.random.one_in(12) {
            &self.actors.payers[self.random.index(PAYERS)]
        } else {
            self.actors.payer(vault.key_of(&voucher.provider))
        };
        key.sign(voucher)
    }

    fn settle_external(&mut self, vault: &Vault) -> Sent {
        let (index, _) = self.provider(vault);
        let voucher = self.signed_voucher(vault, index);
        let consenting = if self.random.one_in(15) { (index + 1) % PROVIDERS } else { index };
        let has_freight = self.random.one_in(3);
        self.settlement(voucher, consenting, has_freight)
    }

    /// The consumer's own provider settles as little as it can, each time with freight.
    fn drain(&mut self, vault: &Vault) -> Sent {
        let provider = self.actors.providers[0].id();
        let Some(known) = vault.allocation(&provider) else {
            let amount = vault.free().saturating_sub(nano(4_500_000));
            let request = AllocationRequest { provider, payout: payout(0), amount };
            return self.order_of(vault, Command::Allocate(request));
        };
        let cumulative = known.paid.saturating_add(nano(SMALLEST_SETTLEMENT));
        let voucher = Voucher { epoch: known.epoch, cumulative, ..self.voucher(vault, 0) };
        let signed = self.actors.payer(vault.key_of(&provider)).sign(voucher);
        self.settlement(signed, 0, true)
    }

    fn settlement(&self, voucher: SignedVoucher, consenting: usize, has_freight: bool) -> Sent {
        let consent = voucher.consent(&self.actors.providers[consenting]);
        let body = message::settle_external(&voucher, &consent).unwrap();
        // Anyone can make the vault pay for the arrival of its own initial state.
        let freight = has_freight.then(|| self.deployment.state_init().unwrap());
        let carrier = Carrier::External(External::external(self.vault, freight, body).unwrap());
        sent("settle", Message::SettleExternal { voucher, consent }, carrier)
    }

    fn settle_internal(&mut self, vault: &Vault) -> Sent {
        let (index, _) = self.provider(vault);
        let voucher = self.signed_voucher(vault, index);
        let value = match self.random.below(10) {
            0 => 3_000_000,
            1 => INTERNAL_COST - 1,
            2 => INTERNAL_COST,
            _ => 20_000_000,
        };
        let carrier = Self::internal(STRANGER, value, message::settle_internal(&voucher).unwrap());
        sent("settle internally", Message::SettleInternal(voucher), carrier)
    }

    fn top_up(&mut self) -> Sent {
        let value = TON / 1_000 + self.random.below(TON / 2);
        let carrier = Self::internal(STRANGER, value, Cell::default());
        // The comparison takes the chain's fee off what arrives.
        sent("top up", Message::TopUp(nano(value)), carrier)
    }

    /// Messages that the model has no words for.
    fn hostile(&mut self, vault: &Vault) -> Sent {
        let key = self.actors.payer(vault.key());
        let (exit, carrier) = match self.random.below(6) {
            0 => (100, self.external(words(&[0xdead_beef, 7]).build().unwrap())),
            1 => {
                let body = words(&[0xdead_beef, 7]).build().unwrap();
                (100, Self::internal(STRANGER, TON / 20, body))
            }
            kind @ (2 | 3) => {
                let magic = if kind == 2 { ORDER_MAGIC } else { RELEASE_MAGIC };
                let mut order = words(&[magic]);
                store_address(&mut order, self.vault);
                order.store_u32(vault.seqno()).unwrap();
                order.store_u32(u32::try_from(self.now + 60).unwrap()).unwrap();
                order.store_u32(0x4343_0199).unwrap();
                let order = order.build().unwrap();
                let mut body = words(&[SIGNED_COMMAND]);
                body.store_raw(&key.sign_hash(&order.repr_hash().0), 512).unwrap();
                body.store_reference(order).unwrap();
                let exit = if kind == 2 { 101 } else { 102 };
                (exit, self.external(body.build().unwrap()))
            }
            kind => {
                let index = self.random.index(PROVIDERS);
                let magic = if kind == 4 { RELEASE_MAGIC } else { ORDER_MAGIC };
                let voucher = self.voucher(vault, index);
                let mut claim = words(&[magic]);
                store_address(&mut claim, self.vault);
                claim.store_u256(&HashBytes(*voucher.provider.as_bytes())).unwrap();
                claim.store_u32(voucher.epoch).unwrap();
                claim.store_u64(voucher.cumulative.as_nano()).unwrap();
                claim.store_u256(&HashBytes(voucher.receipts_root)).unwrap();
                let claim = claim.build().unwrap();
                let hash = claim.repr_hash().0;
                let mut consent = CellBuilder::new();
                consent.store_raw(&key.sign_hash(&hash), 512).unwrap();
                let mut body = words(&[SETTLE_EXTERNAL]);
                body.store_raw(&key.sign_hash(&hash), 512).unwrap();
                body.store_reference(claim).unwrap();
                body.store_reference(consent.build().unwrap()).unwrap();
                (102, self.external(body.build().unwrap()))
            }
        };
        ("hostile", Said::Hostile(Some(exit)), carrier)
    }
}

fn sent(kind: &'static str, message: Message, carrier: Carrier) -> Sent {
    (kind, Said::Message(message), carrier)
}

/// The encoding of the group's identity.
fn identity() -> [u8; 32] {
    std::array::from_fn(|index| u8::from(index == 0))
}

fn words(words: &[u32]) -> CellBuilder {
    let mut builder = CellBuilder::new();
    for word in words {
        builder.store_u32(*word).unwrap();
    }
    builder
}

fn store_address(builder: &mut CellBuilder, address: TonAddress) {
    builder.store_small_uint(0b100, 3).unwrap();
    builder.store_u8(address.workchain.cast_unsigned()).unwrap();
    builder.store_u256(&HashBytes(address.hash)).unwrap();
}
