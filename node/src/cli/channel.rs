//! `channel`: payment channels of a running node.
//!
//! Owns: the layout, and finding a channel by the first digits of its peer.

use cocoon_protocol::identity::NodeId;

use super::output::{Printer, short};
use super::{Context, Failure, unexpected};
use crate::control::{Answer, ChannelRole, ChannelStatus, Request};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the channels.
    List {
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
    /// Give an allocation back to the vault: once to ask, and again when the delay is over.
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
        Command::Release { peer } => {
            let peer = find(context, &peer)?;
            let channels = channels(context, Request::ChannelRelease { peer })?;
            table(&context.printer, &channels)
        }
    }
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
