//! Who can dial whom through which NAT.

use std::time::Duration;

use libp2p::core::Endpoint;
use simnet_core::{Nat, NodeSpec};

use crate::parties::*;
use crate::world;

const S: Duration = Duration::from_secs(1);

world! {
    fn a_nat_lets_in_whom_its_node_has_dialled_and_for_a_while() {
        let mut sim = build();
        let log = Log::default();
        let open = sim.add_node(spec());
        let hidden = sim.add_node(NodeSpec { nat: Nat::Pinholes, ..spec() });
        let stranger = sim.add_node(spec());
        let at_open = echo(&mut sim, open, &log);
        let at_hidden = echo(&mut sim, hidden, &log);
        let at_stranger = echo(&mut sim, stranger, &log);
        let (public, behind) = (sim.address(open), sim.address(hidden));
        let told = log.clone();
        sim.spawn(open, async move {
            let say = |name: &str, up: bool| told.say(format!("{name} {up}"));
            say("before", dial(&at_open, behind.clone()).await.is_ok());
            say("outward", dial(&at_hidden, public).await.is_ok());
            say("back", dial(&at_open, behind.clone()).await.is_ok());
            say("stranger", dial(&at_stranger, behind.clone()).await.is_ok());
            sleep(31 * S).await;
            say("later", dial(&at_open, behind.clone()).await.is_ok());
        });
        sim.run_for(120 * S).unwrap();
        let said: Vec<_> = log.texts().into_iter().filter(|text| !text.contains("lost")).collect();
        assert_eq!(said, ["before false", "outward true", "back true", "stranger false", "later false"]);
    }
}

/// Both dial at once, one of them as the listener, as libp2p's DCUtR does; whether they meet.
fn punch(a: Nat, b: Nat) -> bool {
    let mut sim = build();
    let log = Log::default();
    let nodes = [a, b].map(|nat| sim.add_node(NodeSpec { nat, ..spec() }));
    for (own, other, role) in [(0, 1, Endpoint::Dialer), (1, 0, Endpoint::Listener)] {
        let transport = echo(&mut sim, nodes[own], &log);
        let address = sim.address(nodes[other]);
        let log = log.clone();
        sim.spawn(nodes[own], async move {
            if let Ok(mut muxer) = dial_as(&transport, address, role).await {
                log.say(format!("{role:?}"));
                match role {
                    Endpoint::Dialer => {
                        ask(&mut muxer, b"through").await.unwrap();
                        log.say("answered");
                    }
                    Endpoint::Listener => echo_connection(muxer, log).await,
                }
            }
        });
    }
    sim.run_for(20 * S).unwrap();
    log.when("answered").is_some() && log.when("Listener").is_some()
}

world! { fn holes_are_punched_between_pinholes() { assert!(punch(Nat::Pinholes, Nat::Pinholes)); } }
world! { fn a_symmetric_node_gets_through_a_pinhole() { assert!(punch(Nat::Symmetric, Nat::Pinholes)); } }
world! { fn nobody_gets_through_to_a_symmetric_node() { assert!(!punch(Nat::Pinholes, Nat::Symmetric)); } }
world! { fn two_symmetric_nodes_never_meet() { assert!(!punch(Nat::Symmetric, Nat::Symmetric)); } }
