//! Tasks: order, death, panics, circles, threads, and the world's script.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use simnet_core::{Crash, NodeIndex, RunError, current_node, spawn};

use crate::parties::*;
use crate::world;

const S: Duration = Duration::from_secs(1);

world! {
    fn tasks_run_in_the_order_in_which_they_became_ready() {
        let mut sim = build();
        let node = sim.add_node(spec());
        let log = Log::default();
        for name in ["a", "b", "c"] {
            let log = log.clone();
            sim.spawn(node, async move {
                log.say(format!("{name}1"));
                spawn({ let log = log.clone(); async move { log.say(format!("{name}3")) } });
                sleep(S).await;
                log.say(format!("{name}4"));
            });
        }
        let said = log.clone();
        sim.at(S, move |_| said.say("script comes first at its moment"));
        sim.run_for(2 * S).unwrap();
        let expected = "a1 b1 c1 a3 b3 c3 script comes first at its moment a4 b4 c4";
        assert_eq!(log.texts().join(" "), expected);
    }
}

world! {
    fn a_crash_ends_tasks_for_good_and_their_places_are_not_confused() {
        let mut sim = build();
        let (a, b) = (sim.add_node(spec()), sim.add_node(spec()));
        let log = Log::default();
        let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
        let (told, keep) = (log.clone(), kept.clone());
        struct Last(Log);
        impl Drop for Last {
            fn drop(&mut self) {
                self.0.say(format!("dropped on {:?}", current_node()));
            }
        }
        let last = Last(log.clone());
        sim.spawn(a, async move {
            let _last = last;
            std::future::poll_fn::<(), _>(|cx| {
                *keep.borrow_mut() = Some(cx.waker().clone());
                told.say("polled");
                Poll::Pending
            })
            .await;
        });
        sim.at(S, move |sim| sim.crash(a, Crash::Silent));
        let (told, stale) = (log.clone(), kept.clone());
        sim.at(2 * S, move |sim| {
            sim.spawn(b, async move {
                loop {
                    told.say("other");
                    sleep(10 * S).await; // stands where the dead one stood
                }
            });
        });
        sim.at(3 * S, move |_| stale.borrow().as_ref().unwrap().wake_by_ref());
        sim.run_for(5 * S).unwrap();
        assert_eq!(log.texts(), ["polled", "dropped on Some(NodeIndex(0))", "other"]);
        assert_eq!(sim.statistics().tasks, 1);
    }
}

world! {
    fn a_panic_ends_the_run_with_its_moment_and_node() {
        let mut sim = build();
        let node = sim.add_node(spec());
        sim.spawn(node, async {
            sleep(3 * S).await;
            panic!("out of {}", "luck");
        });
        let error = sim.run_for(5 * S).unwrap_err();
        assert_eq!(error.to_string(), "at 3.000000000s a task of node 0 panicked: out of luck");
    }
}

world! {
    fn tasks_that_run_in_circles_are_caught() {
        let mut sim = build_with(|config| config.polls_per_moment = 1000);
        let node = sim.add_node(spec());
        sim.spawn(node, std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        let error = sim.run_for(5 * S).unwrap_err();
        assert_eq!(error, RunError::Circles { at: Duration::ZERO, node: Some(NodeIndex(0)) });
    }
}

world! {
    fn a_thread_that_wakes_a_task_is_reported() {
        let mut sim = build();
        let node = sim.add_node(spec());
        let mut spawned = false;
        sim.spawn(node, std::future::poll_fn(move |cx| {
            if !std::mem::replace(&mut spawned, true) {
                let waker = cx.waker().clone();
                std::thread::spawn(move || waker.wake()).join().unwrap();
            }
            Poll::Pending
        }));
        let error = sim.run_for(5 * S).unwrap_err();
        assert!(matches!(error, RunError::ForeignThread { .. }));
    }
}

world! {
    fn the_owner_can_step_stop_and_go_on() {
        let mut sim = build();
        let node = sim.add_node(spec());
        sim.spawn(node, async { for _ in 0..5 { sleep(S).await; } });
        assert_eq!(sim.next_moment(), Some(Duration::ZERO), "a task is ready");
        let mut moments = Vec::new();
        while sim.step().unwrap() {
            moments.push(sim.now().as_secs());
        }
        assert_eq!(moments, [1, 2, 3, 4, 5]);
        assert_eq!((sim.next_moment(), sim.statistics().tasks), (None, 0));
        sim.at(S, |sim| assert_eq!(sim.now(), 5 * S, "what is late happens now"));
        assert!(sim.step().unwrap());
    }
}
