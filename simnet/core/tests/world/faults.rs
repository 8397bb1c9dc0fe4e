//! Crashes, restarts, partitions, and links that get worse.

use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use simnet_core::{Crash, Fault, PartsPerMillion, Scope};

use crate::parties::*;
use crate::world;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

world! {
    fn peers_notice_a_silent_crash_after_the_idle_time_out_and_a_reset_at_once() {
        let mut sim = build();
        let log = Log::default();
        let mut victims = Vec::new();
        for crash in [Crash::Silent, Crash::Reset] {
            let (_, b) = pair(&mut sim, &log, move |transport, address, log| async move {
                let mut muxer = dial(&transport, address).await.unwrap();
                let mut stream = open(&mut muxer).await.unwrap();
                stream.write_all(b"x").await.unwrap();
                let error = watch(&mut muxer).await;
                log.say(format!("{crash:?} {}", kind(&error)));
                // The stream is over as well, after what had arrived.
                let mut rest = Vec::new();
                assert!(stream.read_to_end(&mut rest).await.is_err());
                assert_eq!(rest, b"x");
                assert!(stream.write_all(b"y").await.is_err());
            });
            sim.at(20 * S, move |sim| sim.crash(b, crash));
            victims.push(b);
        }
        sim.run_for(60 * S).unwrap();
        // The last sign of life is at most five seconds old, and ten are waited for.
        let silent = log.when("Silent TimedOut").unwrap();
        assert!((25 * S..=30 * S).contains(&silent), "{silent:?}");
        assert_eq!(log.when("Reset TimedOut").unwrap(), 20 * S + 50 * MS);
        assert!(victims.iter().all(|node| !sim.is_up(*node)));
        assert_eq!(sim.statistics().connections, 0, "nothing is left of them");
        assert_eq!(sim.statistics().streams, 0);
    }
}

world! {
    fn a_node_that_is_back_can_be_dialled_where_it_is() {
        let mut sim = build();
        let log = Log::default();
        let (a, b) = (sim.add_node(spec()), sim.add_node(spec()));
        echo(&mut sim, b, &log);
        let transport = listen(&mut sim, a, |_, _| {});
        let (old, told) = (sim.address(b), log.clone());
        let new: libp2p::Multiaddr = old.to_string().replace("4001", "4002").parse().unwrap();
        sim.spawn(a, async move {
            for (wait, address, name) in [
                (0, &old, "first"),
                (15, &old, "while down"),
                (25, &old, "same port"),
                (45, &old, "old port"),
                (55, &new, "new port"),
            ] {
                sleep((wait * S).saturating_sub(simnet_core::clock::now())).await;
                let said = match dial(&transport, address.clone()).await {
                    Ok(mut muxer) => ask(&mut muxer, b"x").await.map(|_| ()),
                    Err(error) => Err(error),
                };
                told.say(match said {
                    Ok(()) => format!("{name}: answered"),
                    Err(error) => format!("{name}: {}", kind(&error)),
                });
            }
        });
        for (down, port) in [(10, None), (40, Some(4002))] {
            sim.at(down * S, move |sim| sim.crash(b, Crash::Silent));
            let log = log.clone();
            sim.at((down + 10) * S - 8 * S * u32::from(port.is_some()), move |sim| {
                sim.restart(b, port);
                echo(sim, b, &log);
            });
        }
        sim.run_for(100 * S).unwrap();
        let texts = log.texts();
        let said: Vec<_> = texts.iter().filter(|text| text.contains(": ")).collect();
        assert_eq!(said, [
            "first: answered",
            "while down: TimedOut",
            "same port: answered",
            "old port: TimedOut",
            "new port: answered",
        ]);
        assert_eq!(log.when("while down: TimedOut"), Some(20 * S), "the dial's time-out");
    }
}

world! {
    fn a_short_partition_delays_and_a_long_one_parts() {
        let mut sim = build();
        let log = Log::default();
        let mut groups = Vec::new();
        for name in ["short", "long"] {
            let (a, b) = pair(&mut sim, &log, move |transport, address, log| async move {
                let mut muxer = dial(&transport, address.clone()).await.unwrap();
                let mut stream = open(&mut muxer).await.unwrap();
                if name == "long" {
                    sleep(40 * S).await;
                }
                sleep((11 * S).saturating_sub(simnet_core::clock::now())).await;
                log.say(format!("{name} asks"));
                let _ = stream.write_all(b"x").await;
                let answer = stream.read_exact(&mut [0]).await;
                log.say(format!("{name}: {}", answer.map_or_else(|error| kind(&error), |()| "answered".into())));
                let again = dial(&transport, address).await;
                log.say(format!("{name} again: {}", again.is_ok()));
            });
            groups.push(vec![a, b]);
        }
        let (short, long) = (groups[0].clone(), groups[1].clone());
        sim.at(10 * S, move |sim| sim.partition(&[vec![short[0]]]));
        sim.at(14 * S, |sim| sim.heal());
        sim.at(20 * S, move |sim| sim.partition(&[vec![long[0]], vec![long[1]]]));
        sim.at(50 * S, |sim| sim.heal());
        sim.run_for(80 * S).unwrap();
        assert_eq!(log.when("short: answered"), Some(log.when("short: answered").unwrap()));
        let answered = log.when("short: answered").unwrap();
        assert!((14 * S + 100 * MS..14 * S + 101 * MS).contains(&answered), "{answered:?}");
        assert!(log.when("short again: true").is_some());
        assert!(log.when("long: TimedOut").is_some(), "{log:?}");
        assert!(log.when("long again: false").is_some() || log.when("long again: true").is_some());
        let lost = log.when("echo lost TimedOut").unwrap();
        assert!((25 * S..=30 * S).contains(&lost), "both sides notice: {lost:?}");
    }
}

world! {
    fn faults_on_links_show_as_delay_and_bytes_and_go_away() {
        let mut sim = build();
        let log = Log::default();
        let (a, b) = pair(&mut sim, &log, |transport, address, log| async move {
            let mut muxer = dial(&transport, address).await.unwrap();
            for name in ["clean", "slow", "lossy", "doubled", "shuffled", "clean again"] {
                let mut sum = Duration::ZERO;
                for _ in 0..50 {
                    sum += ask(&mut muxer, &[1; 100]).await.unwrap();
                }
                log.say(format!("{name}: {}", (sum / 50).as_millis()));
                let next = simnet_core::clock::now().as_secs() / 100 * 100 + 100;
                sleep(Duration::from_secs(next).saturating_sub(simnet_core::clock::now())).await;
            }
        });
        let half = PartsPerMillion(500_000);
        let faults = [
            (99, Scope::Link(a, b), Fault { delay: 30 * MS, ..Fault::default() }),
            (199, Scope::Link(a, b), Fault::default()),
            (199, Scope::Node(b), Fault { loss: PartsPerMillion(300_000), ..Fault::default() }),
            (299, Scope::Node(b), Fault::default()),
            (299, Scope::Everywhere, Fault { duplicated: PartsPerMillion::ALL, ..Fault::default() }),
            (399, Scope::Everywhere, Fault { reordered: half, ..Fault::default() }),
            (499, Scope::Everywhere, Fault::default()),
        ];
        for (moment, scope, fault) in faults {
            sim.at(moment * S, move |sim| sim.set_fault(scope, fault));
        }
        let mut wires = Vec::new();
        for hundred in 1..=6 {
            sim.run_for(hundred * 100 * S - S - sim.now()).unwrap();
            let traffic = sim.traffic();
            let received: u64 = traffic.of(b).take(1).map(|it| it.1.received.wire).sum();
            wires.push(received - wires.iter().sum::<u64>());
        }
        let texts = log.texts();
        let mean = |name: &str| {
            let text = texts.iter().find_map(|text| text.strip_prefix(&format!("{name}: ")));
            text.unwrap().parse::<u64>().unwrap()
        };
        assert_eq!((mean("clean"), mean("slow"), mean("clean again")), (100, 130, 100));
        // A loss of 30 % both ways, each costing 125 ms and more.
        assert!((150..400).contains(&mean("lossy")), "{}", mean("lossy"));
        assert_eq!(mean("doubled"), 100, "a doubled packet is only bytes");
        assert!(wires[3] >= 2 * wires[0] - 500, "{wires:?}");
        assert!((110..200).contains(&mean("shuffled")), "{}", mean("shuffled"));
    }
}
