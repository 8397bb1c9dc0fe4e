//! `channel`: payment channels of a running node.
//!
//! Owns: the layout, and finding a channel by the first digits of its peer.

use std::path::PathBuf;

use cocoon_protocol::identity::NodeId;
use cocoon_protocol::units::NanoTon;

use super::output::{Printer, short};
use super::{Context, Failure, teller, unexpected, vault};
use crate::control::{
    AllocationStatus, Answer, ChannelRole, ChannelStatus, MoneyAnswer, MoneyRequest, Request,
    VaultStatus,
};
use crate::data_folder::write_private;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the channels.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one channel as the ledger has it, beside what this node knows.
    Show {
        /// The other end, or its vault; the first digits are enough.
        id: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Redeem the best voucher of every channel on the ledger (as a provider).
    Settle {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the best vouchers for a watchtower (`cocoon-node watch`), as a provider.
    Export {
        /// Write them to this file instead.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Give an allocation back to the vault. The node asks for it and, when the provider's time to
    /// settle is over, takes it back by itself.
    Release {
        /// The other end, or the first digits of it.
        peer: String,
    },
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::List { json } => {
            let channels = channels(context, Request::ChannelList)?;
            if json {
                return context.printer.json(&channels);
            }
            table(&context.printer, &channels)
        }
        Command::Show { id, json } => show(context, &id, json),
        Command::Settle { json } => {
            let Answer::Settlements(settlements) = context.ask(Request::ChannelSettle)? else {
                return Err(unexpected());
            };
            if json {
                return context.printer.json(&settlements);
            }
            let rows: Vec<_> = settlements
                .iter()
                .map(|one| {
                    vec![short_address(&one.vault), one.amount.to_string(), one.settled.to_string()]
                })
                .collect();
            context.printer.table("settlements", &["VAULT", "PAID NOW", "PAID IN ALL"], &rows)
        }
        Command::Export { output } => {
            let MoneyAnswer::Bundle(bundle) = teller::ask(context, MoneyRequest::Export)? else {
                return Err(unexpected());
            };
            let Some(path) = output else { return context.printer.json(&bundle) };
            let text = serde_json::to_vec_pretty(&bundle).map_err(Failure::new)?;
            write_private(&path, &text)?;
            let written = format_args!("{} vouchers in {}\n", bundle.len(), path.display());
            context.printer.note(written);
            Ok(())
        }
        Command::Release { peer } => {
            let peer = find(context, &peer)?;
            let channels = channels(context, Request::ChannelRelease { peer })?;
            table(&context.printer, &channels)
        }
    }
}

/// A channel from both sides: the ledger's and this node's.
#[derive(serde::Serialize)]
struct Shown {
    channel: ChannelStatus,
    /// What may still be promised.
    headroom_nano: NanoTon,
    /// What is promised and not paid on the ledger yet.
    unsettled_nano: NanoTon,
    /// The vault on the ledger; absent when it is not there.
    vault: Option<VaultStatus>,
    allocation: Option<AllocationStatus>,
}

fn show(context: &Context, id: &str, json: bool) -> Result<(), Failure> {
    let channels = channels(context, Request::ChannelList)?;
    let is_it = |channel: &&ChannelStatus| {
        let peer = channel.peer.map(|peer| peer.to_string());
        !id.is_empty()
            && (peer.is_some_and(|peer| peer.starts_with(id))
                || channel.vault.to_string().starts_with(id))
    };
    let mut found = channels.iter().filter(is_it);
    let channel = match (found.next(), found.next()) {
        (Some(channel), None) => channel.clone(),
        (None, _) => return Err(no_channel(id, "there is no channel with")),
        (Some(_), Some(_)) => return Err(no_channel(id, "there are several channels with")),
    };
    let address = channel.vault;
    let vault = vault::vaults(context, MoneyRequest::Vault { address })?.pop();
    let allocations = vault.as_ref().map(|vault| vault.allocations.as_slice()).unwrap_or_default();
    // A provider's own key is not in the list: its epoch is, and a vault has each but once.
    let allocation = allocations.iter().find(|it| it.epoch == channel.epoch).cloned();
    let limit = allocation.as_ref().map_or(channel.limit, |it| it.limit);
    let paid = allocation.as_ref().map_or(channel.settled, |it| it.paid);
    let shown = Shown {
        headroom_nano: limit.saturating_sub(channel.promised),
        unsettled_nano: channel.promised.min(limit).saturating_sub(paid),
        channel,
        vault,
        allocation,
    };
    if json { context.printer.json(&shown) } else { print(&context.printer, &shown) }
}

fn print(printer: &Printer, shown: &Shown) -> Result<(), Failure> {
    let channel = &shown.channel;
    let peer = channel.peer.map_or_else(|| "not connected".to_owned(), |peer| peer.to_string());
    let role = match channel.role {
        ChannelRole::Payer => "this node pays",
        ChannelRole::Payee => "this node is paid",
    };
    printer.line(format_args!("peer         {peer}"))?;
    printer.line(format_args!("role         {role}"))?;
    printer.line(format_args!("vault        {}", channel.vault))?;
    printer.line(format_args!("epoch        {}", channel.epoch))?;
    printer.line(format_args!("promised     {}", channel.promised))?;
    let (Some(vault), Some(allocation)) = (&shown.vault, &shown.allocation) else {
        return printer.line("on ledger    no such allocation: it was released, or not made yet");
    };
    let unverified = if vault.verified { "" } else { " (unverified: a server says so)" };
    printer.line(format_args!("limit        {}{unverified}", allocation.limit))?;
    printer.line(format_args!("paid         {}", allocation.paid))?;
    printer.line(format_args!("unsettled    {}", shown.unsettled_nano))?;
    printer.line(format_args!("headroom     {}", shown.headroom_nano))?;
    printer.line(format_args!("payout       {}", allocation.payout))?;
    printer.line(format_args!("owner        {}", vault.owner))?;
    let release = vault::release(allocation.unlock_at, vault.as_of);
    printer.line(format_args!("release      {release}"))?;
    printer.line(format_args!("receipts     {}", allocation.receipts_root))
}

fn channels(context: &Context, request: Request) -> Result<Vec<ChannelStatus>, Failure> {
    let Answer::Channels(channels) = context.ask(request)? else {
        return Err(unexpected());
    };
    Ok(channels)
}

/// The one peer of a channel whose id begins with `digits`.
fn find(context: &Context, digits: &str) -> Result<NodeId, Failure> {
    if let Some(peer) = NodeId::from_hex(digits) {
        return Ok(peer);
    }
    let channels = channels(context, Request::ChannelList)?;
    let peers: std::collections::BTreeSet<_> = channels
        .iter()
        .filter_map(|channel| channel.peer)
        .filter(|peer| !digits.is_empty() && peer.to_string().starts_with(digits))
        .collect();
    let mut peers = peers.into_iter();
    match (peers.next(), peers.next()) {
        (Some(peer), None) => Ok(peer),
        (None, _) => Err(no_channel(digits, "there is no channel with")),
        (Some(_), Some(_)) => Err(no_channel(digits, "there are several channels with")),
    }
}

fn no_channel(digits: &str, what: &str) -> Failure {
    Failure::new(anyhow::anyhow!("{what} `{digits}`"))
        .with_hint(Some("`cocoon-node channel list` shows the channels"))
}

fn short_address(address: &impl ToString) -> String {
    address.to_string().chars().take(18).collect()
}

pub(super) fn table(printer: &Printer, channels: &[ChannelStatus]) -> Result<(), Failure> {
    let rows: Vec<_> = channels
        .iter()
        .map(|channel| {
            let role = match channel.role {
                ChannelRole::Payer => "payer",
                ChannelRole::Payee => "payee",
            };
            vec![
                channel.peer.map_or_else(|| "-".to_owned(), short),
                role.to_owned(),
                short_address(&channel.vault),
                channel.epoch.to_string(),
                channel.limit.to_string(),
                channel.promised.to_string(),
                channel.settled.to_string(),
            ]
        })
        .collect();
    let columns = ["PEER", "ROLE", "VAULT", "EPOCH", "LIMIT", "PROMISED", "SETTLED"];
    printer.table("channels", &columns, &rows)
}
