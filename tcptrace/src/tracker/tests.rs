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

fn start(number: u32) -> Event {
    Event::MiniStarted(MiniTimer {
        at: u64::from(number),
        mini: 0xffff_8880_0000_0000 + u64::from(number) * 256,
        flow: flow(number),
        substate: State::TimeWait,
        left_jiffies: 15_000,
        context: Context::Softirq,
    })
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
        tracker.apply(&start(number), &mut out);
    }
    assert_eq!(tracker.minis.len(), MINIS as usize);
    let bytes = tracker.minis.allocated_bytes() / MINIS as usize;
    assert!(bytes <= 200, "{bytes} bytes for a mini");
    println!("{bytes} bytes for a mini");
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
