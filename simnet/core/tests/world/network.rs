//! Latency, order, windows and bytes of connections that nothing goes wrong with.

use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt as _};
use simnet_core::{Access, Links, NodeSpec, Path, Place, RoundTrips, spawn};

use crate::parties::*;
use crate::world;

const MS: Duration = Duration::from_millis(1);

world! {
    fn a_dial_takes_a_round_trip_and_so_does_an_answer() {
        let mut sim = build();
        let log = Log::default();
        pair(&mut sim, &log, |transport, address, log| async move {
            let mut muxer = dial(&transport, address).await.unwrap();
            log.say("connected");
            let took = ask(&mut muxer, b"hello").await.unwrap();
            // Nothing but distance, and the bits of a packet on two lines of a terabit a second.
            assert!((100 * MS..100 * MS + MS / 100).contains(&took), "{took:?}");
            log.say("answered");
        });
        sim.run_for(Duration::from_secs(1)).unwrap();
        let connected = log.when("connected").unwrap();
        assert!((100 * MS..101 * MS).contains(&connected), "{connected:?}");
        assert!(log.when("answered").is_some());
    }
}

world! {
    fn the_real_clocks_show_virtual_time() {
        let mut sim = build();
        let node = sim.add_node(spec());
        let log = Log::default();
        let said = log.clone();
        sim.spawn(node, async move {
            let (instant, calendar) = (std::time::Instant::now(), std::time::SystemTime::now());
            sleep(Duration::from_secs(86_400)).await;
            assert_eq!(instant.elapsed(), Duration::from_secs(86_400));
            assert_eq!(calendar.elapsed().unwrap(), Duration::from_secs(86_400));
            said.say("a day later");
        });
        let wall = simnet_core::clock::wall();
        sim.run_for(Duration::from_secs(90_000)).unwrap();
        assert!(simnet_core::clock::wall() - wall < Duration::from_secs(3600), "real time is real");
        assert_eq!(log.when("a day later"), Some(Duration::from_secs(86_400)));
        // Other threads are untouched.
        let elsewhere = std::thread::spawn(std::time::SystemTime::now).join().unwrap();
        assert!(elsewhere.duration_since(std::time::UNIX_EPOCH).unwrap() > Duration::from_secs(1_760_500_000));
    }
}

world! {
    fn streams_are_independent_and_each_is_in_order() {
        // With jitter of four times the delay flights overtake each other all the time.
        let path = Path { delay: 10 * MS, jitter: 40 * MS, ..Path::default() };
        let mut sim = build_with(|config| config.links = Box::new(simnet_core::Uniform(path)));
        let log = Log::default();
        pair(&mut sim, &log, |transport, address, log| async move {
            let mut muxer = dial(&transport, address).await.unwrap();
            for number in 0..8_u8 {
                let mut stream = open(&mut muxer).await.unwrap();
                let log = log.clone();
                spawn(async move {
                    for value in 0..200_u8 {
                        stream.write_all(&[value]).await.unwrap();
                        sleep(MS).await;
                    }
                    stream.close().await.unwrap();
                    let mut back = Vec::new();
                    stream.read_to_end(&mut back).await.unwrap();
                    assert!(back.iter().copied().eq(0..200));
                    log.say(format!("stream {number}"));
                });
            }
            sleep(Duration::from_secs(5)).await;
        });
        sim.run_for(Duration::from_secs(10)).unwrap();
        let mut texts = log.texts();
        assert_ne!(texts[..8], (0..8).map(|it| format!("stream {it}")).collect::<Vec<_>>()[..]);
        texts.sort();
        assert_eq!(texts.len(), 9, "eight streams, and the goodbye: {texts:?}");
    }
}

world! {
    fn a_writer_waits_when_the_window_is_full_and_goes_on_when_it_is_read() {
        let mut sim = build_with(|config| config.wire.stream_window = 100_000);
        let (a, b) = (sim.add_node(spec()), sim.add_node(spec()));
        let log = Log::default();
        let told = log.clone();
        listen(&mut sim, b, move |_, mut muxer: StreamMuxerBox| {
            let log = told.clone();
            spawn(async move {
                let mut stream =
                    std::future::poll_fn(|cx| muxer.poll_inbound_unpin(cx)).await.unwrap();
                sleep(Duration::from_secs(10)).await; // a slow reader
                log.say("reads");
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                assert!(all.iter().eq((0..251).cycle().take(450_000).collect::<Vec<u8>>().iter()));
                log.say(format!("read {}", all.len()));
            });
        });
        let transport = listen(&mut sim, a, |_, _| {});
        let (address, told) = (sim.address(b), log.clone());
        sim.spawn(a, async move {
            let mut muxer = dial(&transport, address).await.unwrap();
            let mut stream = open(&mut muxer).await.unwrap();
            let all: Vec<u8> = (0..251).cycle().take(450_000).collect();
            stream.write_all(&all[..100_000]).await.unwrap();
            told.say("window full");
            stream.write_all(&all[100_000..]).await.unwrap();
            told.say("written");
            stream.close().await.unwrap();
            sleep(Duration::from_secs(60)).await;
        });
        sim.run_for(Duration::from_secs(30)).unwrap();
        assert!(log.when("window full").unwrap() < Duration::from_secs(1));
        let (reads, written) = (log.when("reads").unwrap(), log.when("written").unwrap());
        // 350,000 bytes through a window of 100,000 take four window updates, each a round trip
        // after the last but the first, which takes one way.
        let took = written - reads;
        assert!((300 * MS..460 * MS).contains(&took), "{took:?}");
        assert!(log.when("read 450000").is_some());
    }
}

world! {
    fn access_lines_serialise_and_share() {
        let mut sim = build_with(|config| config.wire.stream_window = 1 << 30);
        // A megabit a second up: 125,000 bytes take a second.
        let slow = NodeSpec { access: Access { up: 1_000_000, down: 100_000_000 }, ..spec() };
        let (a, b) = (sim.add_node(slow), sim.add_node(spec()));
        let log = Log::default();
        let told = log.clone();
        listen(&mut sim, b, move |_, mut muxer: StreamMuxerBox| {
            let log = told.clone();
            spawn(async move {
                loop {
                    let stream = std::future::poll_fn(|cx| muxer.poll_inbound_unpin(cx)).await;
                    let Ok(mut stream) = stream else { return };
                    let log = log.clone();
                    spawn(async move {
                        stream.read_to_end(&mut Vec::new()).await.unwrap();
                        log.say("one");
                    });
                }
            });
        });
        let transport = listen(&mut sim, a, |_, _| {});
        let address = sim.address(b);
        sim.spawn(a, async move {
            let mut muxer = dial(&transport, address).await.unwrap();
            for _ in 0..2 {
                let mut stream = open(&mut muxer).await.unwrap();
                spawn(async move {
                    stream.write_all(&vec![0; 125_000]).await.unwrap();
                    stream.close().await.unwrap();
                });
            }
            sleep(Duration::from_secs(60)).await;
        });
        sim.run_for(Duration::from_secs(20)).unwrap();
        let last = log.texts().len();
        assert_eq!(last, 2);
        // 250,000 bytes and 4.8 % of headers at 125,000 a second, after the handshake.
        let done = sim.recent_events().iter().filter(|event| {
            event.record.kind == simnet_core::trace::Kind::Delivery
        }).map(|event| event.record.at).max().unwrap();
        let expected = Duration::from_millis(2 * 1048 + 170);
        assert!(done > expected - 50 * MS && done < expected + 50 * MS, "{done:?} for {expected:?}");
    }
}

world! {
    fn regions_have_their_own_distances() {
        let table = [[2, 80], [80, 4]].map(|row| row.map(Duration::from_millis).to_vec());
        let links = RoundTrips::new(&table).unwrap();
        assert_eq!(links.path(Place(0), Place(1)).delay, 40 * MS);
        assert_eq!(links.path(Place(1), Place(1)).jitter, 100 * (MS / 1000));
        assert!(RoundTrips::new(&table[..1]).is_err());
        let mut sim = build_with(|config| config.links = Box::new(links));
        let log = Log::default();
        let near = sim.add_node(NodeSpec { place: Place(1), ..spec() });
        let far = sim.add_node(NodeSpec { place: Place(0), last_mile: 10 * MS, ..spec() });
        let here = sim.add_node(NodeSpec { place: Place(1), ..spec() });
        for node in [near, far] {
            echo(&mut sim, node, &log);
        }
        let transport = listen(&mut sim, here, |_, _| {});
        let addresses = [sim.address(near), sim.address(far)];
        sim.spawn(here, async move {
            for (address, round_trip) in addresses.into_iter().zip([4, 100]) {
                let mut muxer = dial(&transport, address).await.unwrap();
                let took = ask(&mut muxer, b"x").await.unwrap();
                let expected = Duration::from_millis(round_trip);
                assert!((expected..expected.mul_f64(1.06)).contains(&took), "{took:?}");
            }
        });
        sim.run_for(Duration::from_secs(1)).unwrap();
    }
}

world! {
    fn bytes_are_counted_by_protocol_node_and_direction() {
        let mut sim = build();
        let log = Log::default();
        let (a, b) = pair(&mut sim, &log, |transport, address, _| async move {
            let mut muxer = dial(&transport, address).await.unwrap();
            let mut header = b"\x13/multistream/1.0.0\n\x07/hello\n".to_vec();
            header.extend_from_slice(&[0; 1000]);
            ask(&mut muxer, &header).await.unwrap();
            sleep(Duration::from_secs(20)).await;
            drop(muxer);
        });
        sim.run_for(Duration::from_secs(30)).unwrap();
        let traffic = sim.traffic();
        let of = |node, name: &str| traffic.of(node).find(|it| it.0 == name).unwrap().1;
        let (there, back) = (of(a, "/hello"), of(b, "/hello"));
        assert_eq!(there.sent.payload, 1028);
        assert_eq!((there.sent, there.received), (back.received, back.sent), "nothing is lost");
        assert_eq!(there.sent.wire, 1028 + 58 * there.sent.packets);
        assert_eq!(there.sent.packets, 2, "the word, and the stream's end after the answer");
        let handshake = of(a, "(handshake)");
        assert!(handshake.sent.payload >= 2400 && handshake.received.payload == 3600);
        // Twenty quiet seconds: four times a packet each way.
        assert_eq!(of(b, "(keep-alive)").sent.packets, 4);
        assert!(of(b, "(acknowledgements)").sent.wire > 0);
    }
}

world! {
    fn a_byte_transport_carries_the_real_noise_and_yamux() {
        let mut sim = build();
        let key = |byte| libp2p::identity::Keypair::ed25519_from_bytes([byte; 32]).unwrap();
        let (a, b) = (sim.add_node(spec()), sim.add_node(spec()));
        let log = Log::default();
        let told = log.clone();
        let transport = sim.noise_yamux_transport(b, &key(2)).unwrap();
        let address = sim.byte_address(b);
        listen_with(&mut sim, b, transport, address.clone(), move |peer, muxer| {
            assert_eq!(peer, key(1).public().to_peer_id());
            spawn(echo_connection(muxer, told.clone()));
        });
        let transport = sim.noise_yamux_transport(a, &key(1)).unwrap();
        let own = sim.byte_address(a);
        let transport = listen_with(&mut sim, a, transport, own, |_, _| {});
        let told = log.clone();
        sim.spawn(a, async move {
            let mut muxer = dial(&transport, address).await.unwrap();
            told.say("connected");
            // Yamux moves only while it is polled.
            let asked = ask(&mut muxer, &[5; 3000]);
            drop(asked);
            let mut stream = open(&mut muxer).await.unwrap();
            spawn(async move { watch(&mut muxer).await; });
            stream.write_all(&[5; 3000]).await.unwrap();
            stream.flush().await.unwrap();
            let mut back = [0; 3000];
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!(back, [5; 3000]);
            told.say("answered");
            sleep(Duration::from_secs(5)).await;
        });
        sim.run_for(Duration::from_secs(10)).unwrap();
        let connected = log.when("connected").unwrap();
        assert!(connected >= 200 * MS, "one round trip for TCP, one for noise: {connected:?}");
        assert!(log.when("answered").is_some());
        let traffic = sim.traffic();
        let noise = traffic.total().into_iter().find(|it| it.0 == "/noise").unwrap().1;
        assert!(noise.sent.payload > 6000, "all that is encrypted counts as noise: {noise:?}");
    }
}
