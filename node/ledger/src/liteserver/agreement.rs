//! Which masterchain block is believed: one that enough liteservers name.
//!
//! Owns: asking all of them, counting voices, and finding out who says something else.
//! Must not: count two servers of one operator as two voices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tycho_types::models::BlockId;

use super::api::{Answer, Lookup, Query, ZeroState};
use super::connection::{AskError, Server};
use super::servers::Operator;

/// Heights that are tried, from the highest that could be agreed on. Honest servers are a few
/// blocks apart.
const HEIGHTS: usize = 8;
/// How long the others may take after enough have answered.
const GRACE: Duration = Duration::from_millis(300);

/// What came of asking everybody.
#[derive(Debug)]
pub(super) enum Vote {
    /// Enough voices for one block, and who they are.
    Agreed { block: BlockId, voters: Vec<Arc<Server>> },
    /// Not enough voices for any.
    Split {
        /// Voices that answered at all.
        answered: usize,
    },
    /// Nobody answered.
    Silence(AskError),
    /// All that answered serve another network.
    OtherNetwork,
}

/// Asks all of `servers` something at once. When `enough` have answered, the others have only
/// [`GRACE`] left; one that hangs must not slow every read.
pub(super) async fn ask_all(
    servers: &[Arc<Server>],
    query: &Query,
    enough: usize,
) -> Vec<(Arc<Server>, Result<Answer, AskError>)> {
    let mut asked = JoinSet::new();
    for server in servers {
        let (server, query) = (Arc::clone(server), query.clone());
        asked.spawn(async move {
            let answer = server.ask(&query).await;
            (server, answer)
        });
    }
    let mut answers = Vec::new();
    let mut good = 0_usize;
    loop {
        let next = if good < enough {
            asked.join_next().await
        } else {
            tokio::time::timeout(GRACE, asked.join_next()).await.unwrap_or_default()
        };
        let Some(answer) = next else { break };
        if let Ok((server, answer)) = answer {
            good += usize::from(answer.is_ok());
            answers.push((server, answer));
        }
    }
    // They go on, so that what hangs is found out and left alone.
    asked.detach_all();
    answers
}

/// Looks for the newest masterchain block that `quorum` operators name, on the network that began
/// with `zero`, where that is known.
pub(super) async fn vote(servers: &[Arc<Server>], quorum: usize, zero: Option<&ZeroState>) -> Vote {
    let mut newest = Vec::new();
    // What is said when all were dropped: nobody is left to ask.
    let mut silence = AskError::Dropped;
    let mut foreign = false;
    for (server, answer) in ask_all(servers, &Query::MasterchainInfo, quorum).await {
        match answer {
            Ok(Answer::MasterchainInfo { last, zero: named, .. }) => {
                if zero.is_some_and(|zero| *zero != named) {
                    foreign = true;
                    server.drop_for(&"it serves another network (its zero state is another one)");
                } else if last.shard.is_masterchain() {
                    newest.push((server, last));
                } else {
                    server.drop_for(&"it names a block of a shard as the masterchain's");
                }
            }
            Ok(_) => {}
            Err(error) => silence = error,
        }
    }
    if newest.is_empty() {
        return if foreign { Vote::OtherNetwork } else { Vote::Silence(silence) };
    }
    newest.sort_by_key(|(_, block)| std::cmp::Reverse(block.seqno));
    let mut heights: Vec<u32> = newest.iter().skip(quorum - 1).map(|(_, b)| b.seqno).collect();
    heights.dedup();
    for height in heights.into_iter().take(HEIGHTS) {
        let named = name(&newest, height).await;
        if let Some(block) = winner(&named, quorum) {
            let mut voters = Vec::new();
            for (server, named) in named {
                if named == block {
                    voters.push(server);
                } else {
                    let text =
                        format!("it names another block {height} than the other liteservers");
                    server.drop_for(&text);
                }
            }
            return Vote::Agreed { block, voters };
        }
    }
    let voices: BTreeSet<_> = newest.iter().map(|(server, _)| server.address.operator()).collect();
    Vote::Split { answered: voices.len() }
}

/// Which block each server names at `height`, of those that are that far.
async fn name(newest: &[(Arc<Server>, BlockId)], height: u32) -> Vec<(Arc<Server>, BlockId)> {
    let mut named = Vec::new();
    let mut further = Vec::new();
    for (server, block) in newest {
        match block.seqno.cmp(&height) {
            std::cmp::Ordering::Equal => named.push((Arc::clone(server), *block)),
            std::cmp::Ordering::Greater => further.push(Arc::clone(server)),
            std::cmp::Ordering::Less => {}
        }
    }
    let query = Query::LookUp { workchain: -1, shard: 1 << 63, by: Lookup::Number(height) };
    for (server, answer) in ask_all(&further, &query, further.len()).await {
        if let Ok(Answer::BlockHeader { id, .. }) = answer
            && id.seqno == height
            && id.shard.is_masterchain()
        {
            named.push((server, id));
        }
    }
    named
}

/// The only block that has enough voices. Two of them would be a fork, or a quorum that is no
/// majority; then none is believed.
fn winner(named: &[(Arc<Server>, BlockId)], quorum: usize) -> Option<BlockId> {
    let mut voices = BTreeMap::<BlockId, BTreeSet<Operator>>::new();
    for (server, block) in named {
        voices.entry(*block).or_default().insert(server.address.operator());
    }
    let mut enough = voices.into_iter().filter(|(_, voices)| voices.len() >= quorum);
    match (enough.next(), enough.next()) {
        (Some((block, _)), None) => Some(block),
        _ => None,
    }
}
