//! What the tables take: nothing new for an event once they have their size, and a bounded number of bytes for each
//! connection and each TIME_WAIT that is open. Counted by the allocator, not estimated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tcptrace::workload::records::{AT_ONCE, Reader, Shape, Stream};

/// Counts allocations, and the bytes that are allocated now, of each thread by itself: the test runner has its own.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        BYTES.set(BYTES.get() + layout.size() as i64);
        // SAFETY: as promised to this one.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get() - layout.size() as i64);
        // SAFETY: as promised to this one.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations while `records` are fed.
fn allocations_of(reader: &mut Reader, records: &[Vec<u8>]) -> u64 {
    let before = ALLOCATIONS.get();
    reader.feed(records);
    ALLOCATIONS.get() - before
}

/// A hash table is filled by the marks of what was removed as well, and doubles a last time when they have used up its
/// spare room: when that is depends on the seed of its hashes, which is another one in each run. There are three tables.
const LAST_DOUBLINGS: u64 = 3;

#[test]
fn an_event_allocates_nothing_once_the_tables_have_their_size() {
    let shape = Shape { open: 5_000, ..Shape::default() };
    let (mut reader, mut stream) = (Reader::new(shape), Stream::new(shape));
    // All that are open have ended twice over: every table and every histogram has seen what comes.
    while stream.made() < 3 * shape.open {
        reader.feed(&stream.next_records());
    }
    let (mut allocations, mut events) = (0, 0);
    while stream.made() < 8 * shape.open {
        let records = stream.next_records();
        events += records.len();
        allocations += allocations_of(&mut reader, &records);
    }
    assert!(events > 200_000, "{events}");
    assert!(allocations <= LAST_DOUBLINGS, "{allocations} allocations for {events} events");
}

/// Bytes for each of `count` that are made by `next`, tables' spare room included.
fn bytes_each(count: u64, mut next: impl FnMut(&mut Stream) -> Vec<Vec<u8>>) -> f64 {
    let shape = Shape { open: count, ..Shape::default() };
    let (mut reader, mut stream) = (Reader::new(shape), Stream::new(shape));
    reader.feed(&next(&mut stream));
    let (before, made) = (BYTES.get(), stream.made());
    while stream.made() < count {
        let records = next(&mut stream);
        reader.feed(&records);
    }
    (BYTES.get() - before) as f64 / (stream.made() - made) as f64
}

/// Promised of each.
const BYTES_EACH: f64 = 200.0;
/// Just over a power of two times seven eighths, when a hash table has just doubled: the worst moment.
const WORST: u64 = (1 << 17) * 7 / 8 + AT_ONCE;

#[test]
fn a_time_wait_takes_at_most_200_bytes() {
    let each = bytes_each(WORST, Stream::next_records);
    println!("{each:.0} bytes for each of {WORST} TIME_WAITs");
    assert!((20.0..=BYTES_EACH).contains(&each), "{each:.1} bytes");
}

#[test]
fn an_open_connection_takes_at_most_200_bytes() {
    let each = bytes_each(WORST, Stream::next_that_stay);
    println!("{each:.0} bytes for each of {WORST} open connections");
    assert!((20.0..=BYTES_EACH).contains(&each), "{each:.1} bytes");
}
