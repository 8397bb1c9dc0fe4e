//! Bounds of the overlay: connections, streams, records, tables; each with its reason.
//!
//! Owns: the numbers that only this crate needs, per role where roles differ.
//! Must not: repeat a bound of the wire formats; those are in `cocoon_protocol::limits`.

use std::time::Duration;

use crate::Role;

/// How many connections a node of some role keeps, and when it starts to close idle ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Established connections, both directions; the next is refused during its handshake.
    pub total: u32,
    /// Of these, inbound ones: the rest is kept free for our own dials.
    pub inbound: u32,
    /// Inbound handshakes at a time. Each costs a key exchange, so a flood is cut off here.
    pub pending_inbound: u32,
    /// Our own dials at a time: a look-up runs three, eight candidates are tried at once.
    pub pending_outbound: u32,
    /// Connections with one peer: two, because both sides may dial at the same moment, and a
    /// relayed connection coexists with the direct one that replaces it.
    pub per_peer: u32,
    /// Inbound connections from one public subnet (/24 of IPv4, /48 of IPv6).
    pub per_subnet: usize,
    /// When more peers than this are connected, idle ones are closed …
    pub high_water: usize,
    /// … until so many are left.
    pub low_water: usize,
}

impl ConnectionLimits {
    /// The limits of a role. A consumer talks to eight providers per model and a few dozen index
    /// nodes. A provider or a bare node is asked by everyone: 2,000 connections at 35 to 50 kB
    /// are 100 MB, the most that should be spent on waiting.
    pub const fn of(role: Role) -> Self {
        match role {
            Role::Consumer => Self {
                total: 300,
                inbound: 100,
                pending_inbound: 16,
                pending_outbound: 32,
                per_peer: 2,
                per_subnet: 8,
                high_water: 40,
                low_water: 28,
            },
            Role::Provider | Role::Relay => Self {
                total: 2_000,
                inbound: 1_800,
                pending_inbound: 64,
                pending_outbound: 64,
                per_peer: 2,
                per_subnet: 64,
                high_water: 1_600,
                low_water: 1_400,
            },
        }
    }
}

/// A connection younger than this is never closed as idle: its first stream may be on the way.
pub const CONNECTION_GRACE: Duration = Duration::from_secs(10);
/// A connection without any stream is closed by the swarm after this time, libp2p's own default; one
/// without any use, by whoever dialled it: gossip holds a stream on every connection, and each costs
/// both ends some 35 kB. A look-up is over by then, and gossip takes a peer into its meshes as soon
/// as it is connected, if it lacks any.
pub const IDLE_CONNECTION: Duration = Duration::from_secs(10);
/// How often connections without any use are looked for.
pub const SWEEP_EVERY: Duration = Duration::from_secs(3);

/// Control streams that one peer may hold open: one, and one more while it replaces the first.
pub const CONTROL_STREAMS_PER_PEER: usize = 2;
/// Control streams from all peers: as many as connections of a provider. The next gets BUSY.
pub const CONTROL_STREAMS: usize = 2_000;
/// Session streams that one peer may hold open: jobs are multiplexed inside a session, so a
/// second serves hand-over; eight leave room for a gateway's parallel sessions. Then BUSY.
pub const SESSION_STREAMS_PER_PEER: usize = 8;
/// Session streams from all peers, as `cocoon_protocol::limits::SESSIONS`. The next gets BUSY.
pub const SESSION_STREAMS: usize = cocoon_protocol::limits::SESSIONS;
/// Inbound streams of one connection whose verdict byte is not written yet. A peer that opens
/// more without reading is answered by a reset.
pub const VERDICTS_IN_FLIGHT: usize = 32;
/// Time for a verdict byte to leave; after it the stream is reset.
pub const VERDICT_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams that our own node may be opening with one peer at a time; further requests fail at once.
pub const OPEN_REQUESTS_PER_PEER: usize = 64;
/// Time from the request to an open stream, the dial included.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Provider records in our share of the index. At 250 bytes this is 25 MB. When full, new ones
/// are refused until old ones expire: a flood cannot displace what is there.
pub const RECORDS: usize = 100_000;
/// Provider records under one key. Shards aim at 50; 200 is four times that.
pub const RECORDS_PER_KEY: usize = 200;
/// Keys that one provider may hold at one index node: eight models in three tiers, two shards each
/// while the number of shards changes.
pub const RECORDS_PER_PROVIDER: usize = 48;
/// Providers of one public subnet under one key, so that one machine room cannot fill a key.
pub const RECORDS_PER_KEY_AND_SUBNET: usize = 16;
/// Life of a provider record. Short, because GPUs come and go.
pub const RECORD_LIFETIME: Duration = Duration::from_secs(2 * 3600);
/// How often a provider publishes its records anew: four times within their life.
pub const REPUBLISH_EVERY: Duration = Duration::from_secs(30 * 60);
/// How often a node of the index refreshes the buckets of its routing table: a little less than
/// Kademlia's own period, 5 minutes, so that only the bootstraps in between are cut short.
pub const REFRESH_INDEX_EVERY: Duration = Duration::from_secs(4 * 60);
/// Addresses kept of one peer; the rest is ignored.
pub const ADDRESSES_PER_PEER: usize = 8;
/// Peers in the address book. When full, the one learned longest ago makes room.
pub const BOOK_PEERS: usize = 2_048;
/// Peers of one subnet in one bucket of the routing table.
pub const BUCKET_PEERS_PER_SUBNET: usize = 2;
/// Answers of a look-up hold so many providers at most (the replication factor of Kademlia).
pub const REPLICATION: usize = 20;
/// Bytes of one Kademlia message: 20 providers and 20 closer peers with eight addresses each.
pub const KADEMLIA_PACKET_BYTES: usize = 65_536;
/// Length of a look-up. Dead peers dominate it, so it is cut short and tried anew.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(20);

/// Providers in a table: candidates of one model and tier with an open control stream.
pub const WARM_PER_TABLE: usize = 8;
/// Tables that a node may keep at a time; further wants are refused.
pub const TABLES: usize = 256;
/// Candidates remembered per table that were found and not contacted yet.
pub const CANDIDATES_PER_TABLE: usize = 64;
/// Every so often the worst of a full table are replaced by random draws.
pub const EXPLORE_EVERY: Duration = Duration::from_secs(300);
/// How many are replaced then.
pub const EXPLORE_COUNT: usize = 2;
/// First pause between look-ups for a table that is not full; doubles up to the next.
pub const LOOK_UP_MIN: Duration = Duration::from_secs(1);
/// Longest pause between look-ups for a table that has no provider at all.
pub const LOOK_UP_MAX_EMPTY: Duration = Duration::from_secs(15);
/// Shortest pause after a look-up that named nobody new for a table that has some: the index knows
/// no more, and asking again every few seconds would be most of its load.
pub const LOOK_UP_SETTLED: Duration = Duration::from_secs(30);
/// Longest pause between look-ups for a table that has some, but not all its places taken.
pub const LOOK_UP_MAX: Duration = Duration::from_secs(300);
/// Time from the decision to contact a candidate to its offer.
pub const CONTACT_TIMEOUT: Duration = Duration::from_secs(15);
/// A candidate that failed is not contacted again for this long.
pub const CONTACT_PAUSE: Duration = Duration::from_secs(30);
/// A provider that did not prove what it offered is not contacted again for this long: an offer's
/// life. To come back sooner it needs another identity, which proves no more.
pub const AVOID: Duration = Duration::from_secs(600);
/// Providers avoided at a time. When full, the one whose time ends first makes room.
pub const AVOIDED: usize = 1_024;
/// A provider tells its subscribers that it lives when it had nothing else to say for this long.
pub const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Silence after which a provider counts as gone: two missed keep-alives and some delay.
pub const SILENCE: Duration = Duration::from_secs(75);
/// Shortest time between two pushed offers of one provider.
pub const PUSH_EVERY: Duration = Duration::from_secs(5);
/// Control frames that a peer may send in a burst; refills by one a second. An honest provider
/// sends one in five seconds, so only a hostile one meets this; its stream is closed.
pub const CONTROL_BURST: u32 = 8;

/// Entry points: built in, configured, and remembered ones.
pub const ENTRY_POINTS: usize = 64;
/// A node that knows so many of the index leaves an entry point alone for a while after it ended
/// their connection, because it has too many for instance: everybody would dial it again, all the
/// time, and the few entry points there are would do nothing but shake hands.
pub const ENOUGH_INDEX_PEERS: usize = 8;
/// The same holds only with so many connections, the least that gossip wants in a mesh. With fewer
/// the node dials its entry points at once.
pub const ENOUGH_CONNECTIONS: usize = 3;
/// How long such an entry point is left alone. Then it is dialled again: without entry points, two
/// halves of a network that were cut apart for long might know nobody of each other any more.
pub const ENTRY_REST: Duration = Duration::from_secs(600);
/// First pause before an entry point is dialled again; doubles up to the next.
pub const ENTRY_RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest pause before an entry point is dialled again.
pub const ENTRY_RETRY_MAX: Duration = Duration::from_secs(60);

/// Times of discovery's steps that wait to be taken; older ones make room.
pub const MEASURED: usize = 64;
/// How often gossip tends its meshes and says what it has.
pub const GOSSIP_BEAT: Duration = Duration::from_secs(3);
/// Size of a gossiped notice: parameters, revocations and catalogue deltas are small and signed.
pub const NOTICE_BYTES: usize = 16_384;
/// Steps of the event loop before it lets other tasks run.
pub const POLL_BUDGET: usize = 256;
