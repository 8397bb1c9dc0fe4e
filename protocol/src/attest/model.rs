//! A small model of the attested channel, searched exhaustively for attacks (Dolev and Yao, *On the
//! security of public key protocols*, 1983): the attacker owns the network, every machine and, in the
//! strong setting, every long-lived key of the honest nodes; a TEE with the listed image is the one
//! thing that it cannot speak for.
//!
//! Owns: the claim that the protocol as built admits no attack in the model, and which mechanisms have
//! to be missing for which attack. What a quote says is hashed by the real bindings, so a field that
//! they forget is forgotten here too.
//! Must not: stand for a proof about TLS or about hashes. `node/attest/SECURITY.md` has the argument.
//!
//! The model: two genuine TEEs run the same listed image as peers `P1` and `P2`; `P1` also runs in a
//! test network. The attacker holds sessions with each of them, in both roles, passes on nonces,
//! collects what they sign and quote, and offers all of it to a victim in every combination. It also
//! has a TEE with an image of its own, a debug guest with the listed image, and a simulated TEE; these
//! three quote what it likes. Exporters are free: no two sessions share one.

use std::collections::{BTreeMap, BTreeSet};

use super::{EvidenceKind, IdentityBinding, NetworkId, ReportData, SessionBinding, SessionRole};
use crate::identity::NodeId;
use crate::units::Timestamp;

/// A thing that the protocol does, and that a search may leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mechanism {
    // What a session quote is over.
    SessionNetwork,
    SessionRole,
    Exporter,
    /// The nonce is the exporter's context, too.
    ExporterContext,
    Nonce,
    SessionKey,
    SessionPeer,
    GpuDigest,
    ModelManifest,
    // What an identity quote is over.
    IdentityNetwork,
    IdentityPeer,
    IdentityKey,
    // What the verifier checks beside them.
    CertificatePeer,
    NodeSignature,
    IdentityQuote,
    Tier,
    Image,
    Debug,
    Root,
}

const ALL: [Mechanism; 19] = [
    Mechanism::SessionNetwork,
    Mechanism::SessionRole,
    Mechanism::Exporter,
    Mechanism::ExporterContext,
    Mechanism::Nonce,
    Mechanism::SessionKey,
    Mechanism::SessionPeer,
    Mechanism::GpuDigest,
    Mechanism::ModelManifest,
    Mechanism::IdentityNetwork,
    Mechanism::IdentityPeer,
    Mechanism::IdentityKey,
    Mechanism::CertificatePeer,
    Mechanism::NodeSignature,
    Mechanism::IdentityQuote,
    Mechanism::Tier,
    Mechanism::Image,
    Mechanism::Debug,
    Mechanism::Root,
];

/// What a session quote is over.
const SESSION: [Mechanism; 9] = [
    Mechanism::SessionNetwork,
    Mechanism::SessionRole,
    Mechanism::Exporter,
    Mechanism::ExporterContext,
    Mechanism::Nonce,
    Mechanism::SessionKey,
    Mechanism::SessionPeer,
    Mechanism::GpuDigest,
    Mechanism::ModelManifest,
];

/// What the attacker achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Attack {
    /// The attacker reads a session that the victim takes for a TEE's.
    Relay,
    /// The victim talks to a genuine TEE, but another than it wants.
    Diversion,
    /// A TEE's own answer was turned against it.
    Reflection,
    /// Evidence from before the challenge was accepted.
    Replay,
    /// The victim takes the TEE for serving something else than it does.
    Relabelling,
    /// A session that the victim takes for a peer's, in tier `open`.
    Impersonation,
    /// No evidence was accepted where evidence was demanded.
    Downgrade,
}

/// What leaked beside the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    /// Nothing.
    Weak,
    /// The TLS keys and node keys of all honest nodes.
    Strong,
}

/// A value of the protocol: equal when all three parts are.
const fn value(what: u8, of: u8, variant: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    (bytes[0], bytes[1], bytes[2]) = (what, of, variant);
    bytes
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    P1,
    P2,
    Attacker,
}

impl Peer {
    fn id(self) -> NodeId {
        NodeId::from_bytes(value(1, self as u8, 0))
    }
}

/// An end that terminates TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    P1,
    P2,
    /// `P1`'s node in the test network: the same node key, another TLS key.
    P1Test,
    Attacker,
}

const GENUINE: [End; 3] = [End::P1, End::P2, End::P1Test];

impl End {
    const fn peer(self) -> Peer {
        match self {
            Self::P1 | Self::P1Test => Peer::P1,
            Self::P2 => Peer::P2,
            Self::Attacker => Peer::Attacker,
        }
    }

    const fn key(self) -> [u8; 32] {
        value(2, self as u8, 0)
    }

    const fn network(self) -> NetworkId {
        NetworkId::from_bytes(value(3, matches!(self, Self::P1Test) as u8, 1))
    }

    const fn model(self) -> [u8; 32] {
        value(4, self as u8, 0)
    }

    const fn gpu(self) -> [u8; 32] {
        value(5, self as u8, 0)
    }
}

/// What stops each maker of quotes that says what the attacker likes: its own image in a genuine TEE,
/// a debug guest with the listed image, and no TEE at all.
const UNFAITHFUL: [Mechanism; 3] = [Mechanism::Image, Mechanism::Debug, Mechanism::Root];

/// What stands for a network where none is bound.
const NOWHERE: NetworkId = NetworkId::from_bytes([0; 32]);

/// The protocol without some of its mechanisms.
struct Protocol<'a> {
    without: &'a [Mechanism],
}

/// What a session's evidence is over, before hashing.
#[derive(Clone, Copy)]
struct Session {
    network: NetworkId,
    role: SessionRole,
    session: u8,
    nonce: u8,
    key: [u8; 32],
    peer: Peer,
    gpu: [u8; 32],
    model: [u8; 32],
}

impl Protocol<'_> {
    fn has(&self, mechanism: Mechanism) -> bool {
        !self.without.contains(&mechanism)
    }

    /// `value`, or a constant where the mechanism is missing.
    fn keep<T: Copy>(&self, mechanism: Mechanism, value: T, constant: T) -> T {
        if self.has(mechanism) { value } else { constant }
    }

    fn session(&self, said: &Session) -> ReportData {
        let context = self.keep(Mechanism::ExporterContext, said.nonce, 0);
        let exporter = value(6, said.session, context);
        let model = self.keep(Mechanism::ModelManifest, said.model, [0; 32]);
        let peer = self.keep(Mechanism::SessionPeer, said.peer, Peer::P1).id();
        let binding = SessionBinding {
            network: &self.keep(Mechanism::SessionNetwork, said.network, NOWHERE),
            role: self.keep(Mechanism::SessionRole, said.role, SessionRole::Server),
            exporter: &self.keep(Mechanism::Exporter, exporter, [0; 32]),
            nonce: &self.keep(Mechanism::Nonce, value(7, said.nonce, 0), [0; 32]),
            public_key: &self.keep(Mechanism::SessionKey, said.key, [0; 32]),
            peer: &peer,
            gpu_digest: &self.keep(Mechanism::GpuDigest, said.gpu, [0; 32]),
            model_manifest: Some(&model),
        };
        // Without `..`: a new part of the binding has to be modelled before this compiles.
        let SessionBinding {
            network: _,
            role: _,
            exporter: _,
            nonce: _,
            public_key: _,
            peer: _,
            gpu_digest: _,
            model_manifest: _,
        } = binding;
        binding.report_data()
    }

    fn identity(&self, network: NetworkId, peer: Peer, key: [u8; 32]) -> ReportData {
        let binding = IdentityBinding {
            network: &self.keep(Mechanism::IdentityNetwork, network, NOWHERE),
            kind: EvidenceKind::Tdx,
            peer: &self.keep(Mechanism::IdentityPeer, peer, Peer::P1).id(),
            public_key: &self.keep(Mechanism::IdentityKey, key, [0; 32]),
            // The certificate's own statements: that each is covered is tested beside the binding.
            capabilities: &[0; 32],
            not_before: Timestamp::EPOCH,
            not_after: Timestamp::EPOCH,
            configuration: &[0; 32],
        };
        let IdentityBinding {
            network: _,
            kind: _,
            peer: _,
            public_key: _,
            capabilities: _,
            not_before: _,
            not_after: _,
            configuration: _,
        } = binding;
        binding.report_data()
    }

    /// Whether the policy lets a maker pass that quotes what the attacker likes.
    fn trusts_anybody(&self) -> bool {
        UNFAITHFUL.iter().any(|check| !self.has(*check))
    }
}

/// A victim in the middle of a session.
struct Victim {
    /// Whom it wants, in which network and role.
    wants: Peer,
    role: SessionRole,
    session: u8,
    nonce: u8,
    demands_evidence: bool,
}

/// What is offered to a victim: a certificate and an answer.
struct Offered {
    certificate_peer: Peer,
    certificate_key: [u8; 32],
    model: [u8; 32],
    gpu: [u8; 32],
    with_evidence: bool,
}

/// What there is to say to a victim.
#[derive(Clone, Default)]
struct Known {
    /// Whether quotes can be made to order, by makers that only the policy stops.
    makers: bool,
    session_quotes: BTreeSet<[u8; 64]>,
    identity_quotes: BTreeSet<[u8; 64]>,
    signatures: BTreeSet<(Peer, [u8; 64])>,
    node_keys: BTreeSet<Peer>,
    tls_keys: BTreeSet<End>,
}

impl Known {
    /// What anybody can collect before the victim's session or beside it: each genuine end's
    /// certificate, and its answers in the attacker's own sessions with it.
    fn collect(protocol: &Protocol<'_>, setting: Setting, nonces: &[u8]) -> Self {
        let mut known = Self { makers: true, ..Self::default() };
        known.node_keys.insert(Peer::Attacker);
        known.tls_keys.insert(End::Attacker);
        for end in GENUINE {
            let identity = protocol.identity(end.network(), end.peer(), end.key());
            known.identity_quotes.insert(*identity.as_bytes());
            if setting == Setting::Strong {
                known.node_keys.insert(end.peer());
                known.tls_keys.insert(end);
            }
            for role in ROLES {
                for nonce in nonces {
                    // One session each: numbered apart from the victim's.
                    let session = 10 + 2 * (end as u8) + u8::from(role == SessionRole::Client);
                    known.answer(protocol, end, role, session, *nonce);
                }
            }
        }
        known
    }

    /// A genuine end's answer to `nonce` in `session` becomes known.
    fn answer(
        &mut self,
        protocol: &Protocol<'_>,
        end: End,
        role: SessionRole,
        session: u8,
        nonce: u8,
    ) {
        let said = Session {
            network: end.network(),
            role,
            session,
            nonce,
            key: end.key(),
            peer: end.peer(),
            gpu: end.gpu(),
            model: end.model(),
        };
        let quoted = *protocol.session(&said).as_bytes();
        self.session_quotes.insert(quoted);
        self.signatures.insert((end.peer(), quoted));
    }

    /// Whether the attacker can offer this, and the victim accepts it.
    fn passes(&self, protocol: &Protocol<'_>, victim: &Victim, offered: &Offered) -> bool {
        let network = End::P1.network();
        if protocol.has(Mechanism::CertificatePeer) && offered.certificate_peer != victim.wants {
            return false;
        }
        let expected = protocol.session(&Session {
            network,
            role: victim.role,
            session: victim.session,
            nonce: victim.nonce,
            key: offered.certificate_key,
            peer: victim.wants,
            gpu: offered.gpu,
            model: offered.model,
        });
        let expected = expected.as_bytes();
        if protocol.has(Mechanism::NodeSignature)
            && !self.node_keys.contains(&victim.wants)
            && !self.signatures.contains(&(victim.wants, *expected))
        {
            return false;
        }
        if !offered.with_evidence {
            return !(victim.demands_evidence && protocol.has(Mechanism::Tier));
        }
        let made_to_order = self.makers && protocol.trusts_anybody();
        let identity = protocol.identity(network, victim.wants, offered.certificate_key);
        let identity = made_to_order || self.identity_quotes.contains(identity.as_bytes());
        let session = made_to_order || self.session_quotes.contains(expected);
        (identity || !protocol.has(Mechanism::IdentityQuote)) && session
    }
}

const ROLES: [SessionRole; 2] = [SessionRole::Server, SessionRole::Client];
const PEERS: [Peer; 3] = [Peer::P1, Peer::P2, Peer::Attacker];
const ENDS: [End; 4] = [End::P1, End::P2, End::P1Test, End::Attacker];

/// Everything that an attacker who terminates TLS can say about itself.
fn offers(known: &Known, with_evidence: bool) -> Vec<Offered> {
    let mut all = Vec::new();
    for end in &known.tls_keys {
        for certificate_peer in PEERS {
            for labels in ENDS {
                // Model and GPU of the same end: the rewriter tries them apart.
                let (model, gpu) = (labels.model(), labels.gpu());
                let certificate_key = end.key();
                all.push(Offered { certificate_peer, certificate_key, model, gpu, with_evidence });
            }
        }
    }
    all
}

/// The victim's session, its nonce, and a nonce of before.
const SESSION_NUMBER: u8 = 1;
const NONCE: u8 = 1;
const EARLIER: u8 = 2;

impl Victim {
    const fn of(wants: Peer, role: SessionRole) -> Self {
        let (session, nonce) = (SESSION_NUMBER, NONCE);
        Self { wants, role, session, nonce, demands_evidence: true }
    }
}

/// What a genuine end shows and says about itself.
const fn genuine(end: End) -> Offered {
    Offered {
        certificate_peer: end.peer(),
        certificate_key: end.key(),
        model: end.model(),
        gpu: end.gpu(),
        with_evidence: true,
    }
}

/// Searches everything; the attacks found.
fn search(without: &[Mechanism], setting: Setting) -> BTreeSet<Attack> {
    let protocol = Protocol { without };
    let mut found = BTreeSet::new();
    let base = Known::collect(&protocol, setting, &[NONCE, EARLIER]);

    // The victim's TLS ends at the attacker. Victims are consumers and demanding providers; that the
    // layer below authenticates a consumer is not relied on.
    for role in ROLES {
        let mut victim = Victim::of(Peer::P1, role);
        let accepted = |victim: &Victim, evidence| {
            offers(&base, evidence).iter().any(|it| base.passes(&protocol, victim, it))
        };
        if accepted(&victim, true) {
            found.insert(Attack::Relay);
        }
        if accepted(&victim, false) {
            found.insert(Attack::Downgrade);
        }
        // Whoever has stolen a node's key is that node in tier `open`: nothing stops it.
        victim.demands_evidence = false;
        if setting == Setting::Weak && accepted(&victim, false) {
            found.insert(Attack::Impersonation);
        }
    }

    // The victim's TLS ends at another genuine end, which answers honestly and as itself.
    for end in [End::P2, End::P1Test] {
        let mut known = Known::default();
        known.answer(&protocol, end, SessionRole::Server, SESSION_NUMBER, NONCE);
        let identity = protocol.identity(end.network(), end.peer(), end.key());
        known.identity_quotes.insert(*identity.as_bytes());
        let victim = Victim::of(Peer::P1, SessionRole::Server);
        if known.passes(&protocol, &victim, &genuine(end)) {
            found.insert(Attack::Diversion);
        }
    }

    // P1 demands attested consumers, and is challenged in the same session with its own nonce.
    let mut known = Known { makers: false, ..base.clone() };
    let wants = if setting == Setting::Strong { Peer::P1 } else { Peer::Attacker };
    let victim = Victim::of(wants, SessionRole::Client);
    known.answer(&protocol, End::P1, SessionRole::Server, SESSION_NUMBER, NONCE);
    if offers(&known, true).iter().any(|it| known.passes(&protocol, &victim, it)) {
        found.insert(Attack::Reflection);
    }

    // The session was P1's, attested once; then its keys leaked, and P1 is gone from it.
    let mut known = Known { makers: false, ..base };
    let victim = Victim::of(Peer::P1, SessionRole::Server);
    known.answer(&protocol, End::P1, SessionRole::Server, SESSION_NUMBER, EARLIER);
    if known.passes(&protocol, &victim, &genuine(End::P1)) {
        found.insert(Attack::Replay);
    }

    // P1 is still there and answers, but the attacker rewrites what the answer says.
    known.answer(&protocol, End::P1, SessionRole::Server, SESSION_NUMBER, NONCE);
    let other_model = Offered { model: End::P2.model(), ..genuine(End::P1) };
    let other_gpu = Offered { gpu: End::P2.gpu(), ..genuine(End::P1) };
    if [other_model, other_gpu].iter().any(|it| known.passes(&protocol, &victim, it)) {
        found.insert(Attack::Relabelling);
    }
    found
}

/// Minimal sets of missing mechanisms, and the attacks that each adds to those of its subsets.
type Cuts = BTreeMap<Vec<Mechanism>, BTreeSet<Attack>>;

/// All minimal sets of at most `size` mechanisms whose absence admits an attack.
fn minimal_cuts(setting: Setting, size: usize) -> Cuts {
    let mut cuts = Cuts::new();
    let mut sets: Vec<Vec<Mechanism>> = vec![Vec::new()];
    for _ in 0..=size {
        let mut larger = Vec::new();
        for set in sets {
            let known: BTreeSet<Attack> = cuts
                .iter()
                .filter(|(cut, _)| cut.iter().all(|mechanism| set.contains(mechanism)))
                .flat_map(|(_, attacks)| attacks.iter().copied())
                .collect();
            let new: BTreeSet<_> = search(&set, setting).difference(&known).copied().collect();
            for next in ALL.iter().filter(|next| set.last().is_none_or(|last| *next > last)) {
                larger.push([&set[..], &[*next]].concat());
            }
            if !new.is_empty() {
                cuts.insert(set, new);
            }
        }
        sets = larger;
    }
    cuts
}

/// One line for each cut, as `SECURITY.md` lists them.
fn listed(cuts: &Cuts) -> String {
    let line = |(cut, attacks): (&Vec<Mechanism>, &BTreeSet<Attack>)| {
        let missing: Vec<_> = cut.iter().map(|mechanism| format!("{mechanism:?}")).collect();
        let admitted: Vec<_> = attacks.iter().map(|attack| format!("{attack:?}")).collect();
        format!("{}: {}\n", missing.join(" + "), admitted.join(", "))
    };
    cuts.iter().map(line).collect()
}

#[test]
fn the_protocol_as_built_admits_no_attack() {
    for setting in [Setting::Weak, Setting::Strong] {
        assert_eq!(search(&[], setting), BTreeSet::new(), "{setting:?}");
    }
}

#[test]
fn an_honest_session_is_accepted() {
    // Otherwise the search above would find nothing for the wrong reason.
    let protocol = Protocol { without: &[] };
    let mut known = Known::collect(&protocol, Setting::Weak, &[]);
    for role in ROLES {
        known.answer(&protocol, End::P1, role, SESSION_NUMBER, NONCE);
        let victim = Victim::of(Peer::P1, role);
        assert!(known.passes(&protocol, &victim, &genuine(End::P1)), "{role:?}");
    }
}

#[test]
fn an_identity_quote_alone_falls_to_a_relay() {
    // What a certificate can prove: no session quote. Known to be broken, and found to be.
    assert!(search(&SESSION, Setting::Strong).contains(&Attack::Relay));
    // The same without the exporter alone: a nonce and a key do not bind a session.
    assert!(search(&[Mechanism::Exporter], Setting::Strong).contains(&Attack::Relay));
}

#[test]
fn every_mechanism_stops_an_attack_that_others_do_not() {
    let weak = minimal_cuts(Setting::Weak, 4);
    let strong = minimal_cuts(Setting::Strong, 3);
    let used: BTreeSet<_> = weak.keys().chain(strong.keys()).flatten().copied().collect();
    assert_eq!(used, ALL.into_iter().collect());
}

/// The lines of the block below `heading` in the document: where they begin and end.
fn block(document: &str, heading: &str) -> std::ops::Range<usize> {
    let begin = document.find(heading).unwrap();
    let begin = begin + document[begin..].find("```text\n").unwrap() + "```text\n".len();
    begin..begin + document[begin..].find("```").unwrap()
}

#[test]
fn the_attacks_without_some_mechanisms_are_the_ones_in_the_document() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../node/attest/SECURITY.md");
    let mut document = std::fs::read_to_string(path).unwrap();
    for (heading, setting, size) in
        [("Nothing leaked", Setting::Weak, 4), ("Every key leaked", Setting::Strong, 3)]
    {
        let found = listed(&minimal_cuts(setting, size));
        if std::env::var_os("COCOON_WRITE_GENERATED").is_some() {
            let range = block(&document, heading);
            document.replace_range(range, &found);
            std::fs::write(path, &document).unwrap();
        }
        assert_eq!(&document[block(&document, heading)], found, "{heading}");
    }
}
