//! What scenarios cannot show: memory.

use super::owners::Owners;
use super::row::{Full, Mini};
use super::table::Row;
use super::{Limits, Tracker};
use crate::event::{Comm, Context, Event, MiniTimer, Task};
use crate::net::{Addr, Flow, State};
use crate::outcome::Evidence;
use std::net::{IpAddr, Ipv4Addr};

fn flow(number: u32) -> Flow {
    let address = |last| Addr::from(IpAddr::from(Ipv4Addr::new(10, 0, 0, last)));
    Flow {
        local: address(1),
        remote: Addr::from(IpAddr::from(Ipv4Addr::from(0x0b00_0000 + (number >> 15)))),
        netns: 1,
        local_port: 32768 + (number & 0x7fff) as u16,
        remote_port: 80,
    }
}

fn timer(number: u32) -> MiniTimer {
    MiniTimer {
        at: u64::from(number),
        mini: 0xffff_8880_0000_0000 + u64::from(number) * 256,
        flow: flow(number),
        substate: State::TimeWait,
        left_jiffies: 15_000,
        context: Context::Softirq,
    }
}

/// What slab makes of a row, so that [`super::table::Table::allocated_bytes`] counts right.
#[test]
fn a_slabs_entry_is_as_large_as_its_row() {
    #[expect(dead_code, reason = "only its size matters")]
    enum Entry<T> {
        Vacant(usize),
        Occupied(T),
    }
    assert_eq!((size_of::<Row<Full>>(), size_of::<Row<Mini>>()), (128, 128));
    assert_eq!(size_of::<Entry<Row<Mini>>>(), size_of::<Row<Mini>>());
    assert_eq!(size_of::<Entry<Row<Full>>>(), size_of::<Row<Full>>());
}

#[test]
fn a_million_minis_take_less_than_200_bytes_each() {
    const MINIS: u32 = 1_000_000;
    let mut tracker = Tracker::new(Limits::default());
    let mut out = Vec::new();
    for number in 0..MINIS {
        tracker.apply(&Event::MiniStarted(timer(number)), &mut out);
    }
    assert_eq!(tracker.minis.len(), MINIS as usize);
    let bytes = tracker.minis.allocated_bytes() / MINIS as usize;
    assert!(bytes <= 200, "{bytes} bytes for a mini");
    println!("{bytes} bytes for a mini");
}

#[test]
fn memory_of_a_burst_is_given_back() {
    const MINIS: u32 = 200_000;
    let mut tracker = Tracker::new(Limits::default());
    let mut out = Vec::new();
    let end = |number: u32| {
        let MiniTimer { mini, flow, context, .. } = timer(number);
        let (at, left_jiffies) = (u64::from(MINIS), 10_000);
        Event::MiniCancelled(MiniTimer { at, mini, flow, substate: State::TimeWait, left_jiffies, context })
    };
    (0..MINIS).for_each(|number| tracker.apply(&Event::MiniStarted(timer(number)), &mut out));
    let before = tracker.minis.allocated_bytes();
    // The last and one in a thousand stay.
    let stay = |number: u32| number.is_multiple_of(1000) || number == MINIS - 1;
    (0..MINIS).filter(|&number| !stay(number)).for_each(|number| tracker.apply(&end(number), &mut out));
    tracker.shrink();
    assert_eq!(tracker.minis.allocated_bytes(), before, "all may still be asked for");
    tracker.expire(tracker.deadline().unwrap_or(0), &mut out);
    tracker.shrink();
    assert_eq!(tracker.minis.len(), 201);
    let after = tracker.minis.allocated_bytes();
    assert!(after < before / 100, "{before} bytes and then {after}");
    let open: Vec<_> = tracker.open().map(|open| open.flow).collect();
    let expected: Vec<_> = (0..MINIS).filter(|&number| stay(number)).map(flow).collect();
    assert_eq!(open, expected);
    // And they are found at their new places.
    out.clear();
    tracker.apply(&end(MINIS - 1), &mut out);
    tracker.expire(u64::MAX, &mut out);
    assert_eq!(out.len(), 1, "{out:?}");
}

#[test]
fn owners_that_nobody_refers_to_are_forgotten() {
    let mut owners = Owners::default();
    let task = |pid| Task { pid, tid: pid, comm: Comm::default(), cgroup_id: 0, kthread: false };
    let kept = owners.learn(None, &task(0), Evidence::Close).unwrap();
    for pid in 1..100_000 {
        if owners.wants_sweep() {
            owners.sweep([kept].into_iter());
        }
        owners.learn(None, &task(pid), Evidence::Close);
    }
    assert!(owners.len() <= 1024, "{} owners", owners.len());
    assert_eq!(owners.get(kept).unwrap().pid, 0);
    let again = owners.learn(None, &task(0), Evidence::Close).unwrap();
    assert_eq!(again, kept, "known after its index was made anew");
}
