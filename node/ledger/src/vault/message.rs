//! Bodies of the messages that a vault takes, as `contracts/vault/messages.tolk` defines them.
//!
//! Owns: their cells, and what of an order is signed.
//! Must not: keep a key or choose a seqno; both come in as arguments.

use cocoon_protocol::channel::settlement::{AllocationRequest, BATCH, Command};
use cocoon_protocol::channel::{
    ChannelId, RELEASE_MAGIC, SignedRelease, SignedVoucher, VOUCHER_MAGIC, VaultKey,
};
use cocoon_protocol::identity::TonAddress;
use cocoon_protocol::units::{NanoTon, Timestamp};
use tycho_types::cell::Cell;

use super::cell::{EncodeVaultError, Writer, basechain_account};

/// Tag of an order, ASCII `CCC2`.
const ORDER_MAGIC: u32 = 0x4343_4332;

const SIGNED_COMMAND: u32 = 0x4343_0001;
const SETTLE_EXTERNAL: u32 = 0x4343_0002;
const SWEEP: u32 = 0x4343_0003;
const OWNER_COMMAND: u32 = 0x4343_0004;
const SETTLE_INTERNAL: u32 = 0x4343_0005;

const ALLOCATE: u32 = 0x4343_0101;
const REBALANCE: u32 = 0x4343_0102;
const REQUEST_RELEASE: u32 = 0x4343_0103;
const FINALIZE_RELEASE: u32 = 0x4343_0104;
const RELEASE: u32 = 0x4343_0105;
const WITHDRAW: u32 = 0x4343_0106;
const CLOSE: u32 = 0x4343_0107;
const ROTATE_KEY: u32 = 0x4343_0108;

/// Gas money for [`settle_internal`] and [`owner_command`]: enough for the most expensive of them
/// in the worst map (60,000 gas) at three times the prices of 2026. What is left of it travels
/// with the payout, or stays in the vault.
pub const INTERNAL_VALUE: NanoTon = NanoTon::from_nano(15_000_000);

/// Body of an external message: a command of the hot key, signed.
///
/// `seqno` is [`super::VaultState::seqno`]; `valid_until` is the last second at which the order may
/// be executed, by the ledger's clock.
///
/// # Errors
///
/// When a payout is not in the basechain, a batch is empty or too long, a release is for another
/// vault, or the order outlives the contract's clock.
pub fn order(
    vault: TonAddress,
    seqno: u32,
    valid_until: Timestamp,
    command: &Command,
    key: &VaultKey,
) -> Result<Cell, EncodeVaultError> {
    if let Command::Release(signed) = command
        && signed.release.vault != vault
    {
        return Err(EncodeVaultError::OtherVault);
    }
    let valid_until =
        u32::try_from(valid_until.as_unix_secs()).map_err(|_| EncodeVaultError::ValidUntil)?;
    let order = Writer::new()
        .u32(ORDER_MAGIC)
        .address(vault)
        .u32(seqno)
        .u32(valid_until)
        .append(write_command(command)?)
        .finish()?;
    let signature = key.sign_hash(&order.repr_hash().0);
    Writer::new().u32(SIGNED_COMMAND).signature(&signature).reference(order).finish()
}

/// Body of an internal message from the vault's owner: a command without a signature. Attach
/// [`INTERNAL_VALUE`].
///
/// # Errors
///
/// When a payout is not in the basechain, or a batch is empty or too long.
pub fn owner_command(command: &Command) -> Result<Cell, EncodeVaultError> {
    Writer::new().u32(OWNER_COMMAND).append(write_command(command)?).finish()
}

/// Body of an external message that redeems a voucher; gas comes out of the payout. `consent` is
/// [`SignedVoucher::consent`].
///
/// # Errors
///
/// Never, but for the library's sake.
pub fn settle_external(
    voucher: &SignedVoucher,
    consent: &[u8; 64],
) -> Result<Cell, EncodeVaultError> {
    Writer::new()
        .u32(SETTLE_EXTERNAL)
        .signature(&voucher.signature)
        .reference(voucher_cell(voucher)?)
        .reference(Writer::new().signature(consent).finish()?)
        .finish()
}

/// Body of an internal message that redeems a voucher. Attach [`INTERNAL_VALUE`].
///
/// # Errors
///
/// Never, but for the library's sake.
pub fn settle_internal(voucher: &SignedVoucher) -> Result<Cell, EncodeVaultError> {
    Writer::new()
        .u32(SETTLE_INTERNAL)
        .signature(&voucher.signature)
        .reference(voucher_cell(voucher)?)
        .finish()
}

/// Body of an external message that sends the accrued network fee to the treasury.
///
/// # Errors
///
/// Never, but for the library's sake.
pub fn sweep() -> Result<Cell, EncodeVaultError> {
    Writer::new().u32(SWEEP).finish()
}

fn voucher_cell(signed: &SignedVoucher) -> Result<Cell, EncodeVaultError> {
    let voucher = &signed.voucher;
    let channel = voucher.channel();
    claim_cell(VOUCHER_MAGIC, channel, voucher.cumulative, &voucher.receipts_root)
}

/// A release says nothing about receipts: the allocation that would hold their root ends with it.
fn release_cell(signed: &SignedRelease) -> Result<Cell, EncodeVaultError> {
    let release = &signed.release;
    claim_cell(RELEASE_MAGIC, release.channel(), release.cumulative, &[0; 32])
}

fn claim_cell(
    magic: u32,
    channel: ChannelId,
    cumulative: NanoTon,
    receipts_root: &[u8; 32],
) -> Result<Cell, EncodeVaultError> {
    Writer::new()
        .u32(magic)
        .address(channel.vault)
        .bytes32(channel.provider.as_bytes())
        .u32(channel.epoch)
        .amount(cumulative)
        .bytes32(receipts_root)
        .finish()
}

fn write_command(command: &Command) -> Result<Writer, EncodeVaultError> {
    Ok(match command {
        Command::Allocate(request) => Writer::new().u32(ALLOCATE).append(write_request(request)?),
        Command::Rebalance(requests) => write_rebalance(requests)?,
        Command::RequestRelease(provider) => {
            Writer::new().u32(REQUEST_RELEASE).bytes32(provider.as_bytes())
        }
        Command::FinalizeRelease(provider) => {
            Writer::new().u32(FINALIZE_RELEASE).bytes32(provider.as_bytes())
        }
        Command::Release(signed) => {
            Writer::new().u32(RELEASE).signature(&signed.signature).reference(release_cell(signed)?)
        }
        Command::Withdraw(amount) => Writer::new().u32(WITHDRAW).amount(*amount),
        Command::Close => Writer::new().u32(CLOSE),
        Command::RotateKey(key) => Writer::new().u32(ROTATE_KEY).bytes32(key.as_bytes()),
    })
}

fn write_request(request: &AllocationRequest) -> Result<Writer, EncodeVaultError> {
    Ok(Writer::new()
        .bytes32(request.provider.as_bytes())
        .bytes32(&basechain_account(request.payout)?)
        .amount(request.amount))
}

/// A chain of cells, each with a request and a reference to the next, built from its end.
fn write_rebalance(requests: &[AllocationRequest]) -> Result<Writer, EncodeVaultError> {
    let length = requests.len();
    let count = u8::try_from(length).ok().filter(|_| (1..=BATCH).contains(&length));
    let count = count.ok_or(EncodeVaultError::BatchLength(length))?;
    let mut total = NanoTon::ZERO;
    let mut next: Option<Cell> = None;
    for request in requests.iter().rev() {
        total = total.checked_add(request.amount).ok_or(EncodeVaultError::BatchTotal)?;
        let writer = write_request(request)?;
        let writer = match next.take() {
            Some(cell) => writer.reference(cell),
            None => writer,
        };
        next = Some(writer.finish()?);
    }
    let first = next.ok_or(EncodeVaultError::BatchLength(length))?;
    Ok(Writer::new().u32(REBALANCE).u8(count).amount(total).reference(first))
}
