//! Rows found by flow, and some by kernel address, with a capacity.
//!
//! Rows stand in one slab; an index holds four-byte slots and compares with the row itself, so that it repeats
//! no key. That makes an index entry five bytes instead of fifty. With a million rows every look-up costs the
//! caches that were not asked for it, so there are no more indexes than are needed: full sockets have both,
//! minis are found by flow alone.

use std::hash::{BuildHasher, Hasher};
use std::ops::{Deref, DerefMut, Index, IndexMut};

use hashbrown::{DefaultHashBuilder, HashTable};
use slab::Slab;

use crate::net::Flow;
use crate::outcome::ConnId;
use crate::prefetch;

/// Where a row stands. Reused after the row is gone: whoever keeps one compares [`Row::conn`] too.
pub(super) type Slot = u32;

/// A table with room for fewer rows than these keeps what it has: 8 MB of minis.
const KEPT_ROWS: usize = 1 << 16;
/// Memory is given back when less than one in so many slots is in use. Growing again then costs less than what
/// went through the table meanwhile.
const SPARSE: usize = 8;

/// What every row has; the rest is in `B`, which a row can be used as. Aligned, so that a row that nobody has
/// touched for a minute is two cache lines to fetch and not three.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Row<B> {
    addr: u64,
    flow: Flow,
    conn: ConnId,
    body: B,
}

impl<B> Row<B> {
    pub(super) fn new(addr: u64, flow: Flow, conn: ConnId, body: B) -> Self {
        Self { addr, flow, conn, body }
    }

    /// The kernel's address; 0 while it is not known.
    pub(super) fn addr(&self) -> u64 {
        self.addr
    }

    /// Four-tuple and namespace.
    pub(super) fn flow(&self) -> &Flow {
        &self.flow
    }

    /// The connection's number.
    pub(super) fn conn(&self) -> ConnId {
        self.conn
    }
}

impl<B> Deref for Row<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.body
    }
}

impl<B> DerefMut for Row<B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.body
    }
}

/// See the module. `ADDRESSED` tables find their rows by address as well.
#[derive(Clone, Debug)]
pub(super) struct Table<B, const ADDRESSED: bool> {
    rows: Slab<Row<B>>,
    by_addr: HashTable<Slot>,
    by_flow: HashTable<Slot>,
    capacity: usize,
    places: Places,
    /// Seeded by chance: flows are chosen by whoever connects, who must not be able to choose collisions.
    hasher: DefaultHashBuilder,
}

impl<B, const ADDRESSED: bool> Table<B, ADDRESSED> {
    /// Holds at most `capacity` rows, and never more than slots can be numbered.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            rows: Slab::new(),
            by_addr: HashTable::new(),
            by_flow: HashTable::new(),
            capacity: capacity.min(Slot::MAX as usize),
            places: Places::default(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= self.capacity
    }

    /// Adds a row; `None` when there is no room.
    pub(super) fn insert(&mut self, row: Row<B>) -> Option<Slot> {
        if self.is_full() {
            return None;
        }
        let slot = Slot::try_from(self.rows.insert(row)).ok()?;
        self.index_addr(slot);
        self.index_flow(slot);
        Some(slot)
    }

    /// Takes a row out.
    ///
    /// # Panics
    /// If there is none: slots are handed out by this table and dropped with the row.
    pub(super) fn remove(&mut self, slot: Slot) -> Row<B> {
        self.unindex_addr(slot);
        self.unindex_flow(slot);
        self.rows.remove(slot as usize)
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Row<B>> {
        self.rows.get(slot as usize)
    }

    /// The row at a kernel address; only in an addressed table.
    pub(super) fn by_addr(&self, addr: u64) -> Option<Slot> {
        if addr == 0 || !ADDRESSED {
            return None;
        }
        let hash = self.hasher.hash_one(addr);
        self.by_addr.find(hash, |&slot| self[slot].addr == addr).copied()
    }

    /// Rows with this flow that `wanted` accepts.
    pub(super) fn with_flow<'a>(
        &'a self,
        flow: &'a Flow,
        wanted: impl Fn(&Row<B>) -> bool + 'a,
    ) -> impl Iterator<Item = Slot> + 'a {
        self.by_flow.iter_hash(hash_flow(&self.hasher, flow)).copied().filter(move |&slot| {
            let row = &self[slot];
            row.flow == *flow && wanted(row)
        })
    }

    /// The newest row with this flow that `wanted` accepts. Newest, because the table's own order depends on
    /// chance and results must not.
    pub(super) fn by_flow(&self, flow: &Flow, wanted: impl Fn(&Row<B>) -> bool) -> Option<Slot> {
        self.with_flow(flow, wanted).max_by_key(|&slot| self[slot].conn)
    }

    /// Fetches what the index by flow says of this flow, or would say of it from now on, into the processor's cache.
    pub(super) fn fetch_index(&self, flow: &Flow) {
        let hash = hash_flow(&self.hasher, flow);
        self.places.index_of(hash, self.by_flow.num_buckets()).into_iter().for_each(prefetch::line);
    }

    /// Fetches the rows that may have this flow, once their place in the index is there.
    pub(super) fn fetch_rows(&self, flow: &Flow) {
        for &slot in self.by_flow.iter_hash(hash_flow(&self.hasher, flow)) {
            prefetch::lines(self.places.row::<Row<B>>(slot), size_of::<Row<B>>());
        }
    }

    /// Tells a row its address, or with 0 takes it away.
    pub(super) fn set_addr(&mut self, slot: Slot, addr: u64) {
        self.unindex_addr(slot);
        self.rows[slot as usize].addr = addr;
        self.index_addr(slot);
    }

    /// Tells a row its flow.
    pub(super) fn set_flow(&mut self, slot: Slot, flow: Flow) {
        self.unindex_flow(slot);
        self.rows[slot as usize].flow = flow;
        self.index_flow(slot);
    }

    /// All rows, in the order of their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Row<B>)> {
        // `insert` has refused every key that is no slot.
        self.rows.iter().map(|(key, row)| (key as Slot, row))
    }

    /// Whether [`Self::compact`] is worth its pass over all rows: few are left of a burst.
    pub(super) fn is_sparse(&self) -> bool {
        let capacity = self.rows.capacity();
        capacity >= KEPT_ROWS && self.rows.len() < capacity / SPARSE
    }

    /// Gives back the memory of what is gone. Rows keep their order and get new slots: `(old, new)` of each,
    /// ascending by both.
    pub(super) fn compact(&mut self) -> Vec<(Slot, Slot)> {
        // With room for as many again, so that it is not grown at once.
        let room = Slab::with_capacity(self.rows.len() * 2);
        let old = std::mem::replace(&mut self.rows, room);
        self.by_addr = HashTable::new();
        self.by_flow = HashTable::new();
        // `insert` has refused every key that is no slot.
        let moved: Vec<_> =
            old.into_iter().map(|(slot, row)| (slot as Slot, self.rows.insert(row) as Slot)).collect();
        for &(_, slot) in &moved {
            self.index_addr(slot);
            self.index_flow(slot);
        }
        moved
    }

    /// Changes every row's body.
    pub(super) fn for_each_mut(&mut self, mut change: impl FnMut(&mut B)) {
        self.rows.iter_mut().for_each(|(_, row)| change(&mut row.body));
    }

    /// Bytes allocated, the indexes included.
    #[cfg(test)]
    pub(super) fn allocated_bytes(&self) -> usize {
        // A slab's entry is as large as its row: the vacant variant hides in one of the row's enums.
        self.rows.capacity() * size_of::<Row<B>>()
            + self.by_addr.allocation_size()
            + self.by_flow.allocation_size()
    }

    fn index_addr(&mut self, slot: Slot) {
        let Self { rows, by_addr, hasher, .. } = self;
        let addr = rows[slot as usize].addr;
        if ADDRESSED && addr != 0 {
            let rehash = |&slot: &Slot| hasher.hash_one(rows[slot as usize].addr);
            by_addr.insert_unique(hasher.hash_one(addr), slot, rehash);
        }
    }

    fn unindex_addr(&mut self, slot: Slot) {
        let addr = self[slot].addr;
        if ADDRESSED
            && addr != 0
            && let Ok(entry) = self.by_addr.find_entry(self.hasher.hash_one(addr), |&it| it == slot)
        {
            entry.remove();
        }
    }

    fn index_flow(&mut self, slot: Slot) {
        let Self { rows, by_flow, hasher, places, .. } = self;
        let rehash = |&slot: &Slot| hash_flow(hasher, &rows[slot as usize].flow);
        let entry = by_flow.insert_unique(rehash(&slot), slot, rehash);
        // Either may have moved for want of room.
        *places = Places::of(&rows[slot as usize], slot, entry.get(), entry.bucket_index());
    }

    fn unindex_flow(&mut self, slot: Slot) {
        let hash = hash_flow(&self.hasher, &self[slot].flow);
        if let Ok(entry) = self.by_flow.find_entry(hash, |&it| it == slot) {
            entry.remove();
        }
    }
}

/// Where the memory of a table stands, as far as a hint to the processor wants to know: worked out without a look at it, as
/// it is this look that would be waited for. Whatever moves a table leaves this behind until the next row is added, and of
/// the index it says how hashbrown lays it out today: what is wrong costs time and nothing else.
#[derive(Clone, Copy, Debug, Default)]
struct Places {
    /// The row in slot 0, whether there is one or not.
    first_row: usize,
    /// The index: a byte for each bucket from here on upwards, a slot for each from here on downwards.
    index: usize,
}

impl Places {
    /// Of tables that have this row in that slot, and a slot in that bucket of the index.
    fn of<R>(row: &R, slot: Slot, indexed: &Slot, bucket: usize) -> Self {
        let address = std::ptr::from_ref::<R>(row).addr();
        let first_row = address.wrapping_sub((slot as usize).wrapping_mul(size_of::<R>()));
        let index = std::ptr::from_ref(indexed).addr().wrapping_add((bucket + 1) * size_of::<Slot>());
        Self { first_row, index }
    }

    fn row<R>(&self, slot: Slot) -> *const u8 {
        let offset = (slot as usize).wrapping_mul(size_of::<R>());
        std::ptr::without_provenance(self.first_row.wrapping_add(offset))
    }

    /// Where an index of so many buckets, a power of two, begins to look for a hash: the byte, and the slot.
    fn index_of(&self, hash: u64, buckets: usize) -> [*const u8; 2] {
        let bucket = hash as usize & (buckets - 1);
        let slot = self.index.wrapping_sub((bucket + 1) * size_of::<Slot>());
        [self.index.wrapping_add(bucket), slot].map(std::ptr::without_provenance)
    }
}

/// The hash of a flow, taken in words: its derived [`std::hash::Hash`] goes by bytes and takes three times as
/// long.
fn hash_flow(hasher: &DefaultHashBuilder, flow: &Flow) -> u64 {
    let mut state = hasher.build_hasher();
    state.write_u128(u128::from_ne_bytes(flow.local.0));
    state.write_u128(u128::from_ne_bytes(flow.remote.0));
    let ports = u32::from(flow.local_port) << 16 | u32::from(flow.remote_port);
    state.write_u64(u64::from(flow.netns) << 32 | u64::from(ports));
    state.finish()
}

impl<B, const ADDRESSED: bool> Index<Slot> for Table<B, ADDRESSED> {
    type Output = Row<B>;

    fn index(&self, slot: Slot) -> &Row<B> {
        &self.rows[slot as usize]
    }
}

impl<B, const ADDRESSED: bool> IndexMut<Slot> for Table<B, ADDRESSED> {
    fn index_mut(&mut self, slot: Slot) -> &mut Row<B> {
        &mut self.rows[slot as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(number: u16) -> Flow {
        let loopback = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        Flow {
            local: loopback.into(),
            remote: loopback.into(),
            netns: 1,
            local_port: number,
            remote_port: 80,
        }
    }

    /// Hints that are wrong would only cost time, which no other test sees.
    #[test]
    fn hints_name_the_memory_that_is_looked_at() {
        let mut table = Table::<bool, false>::new(10_000);
        for number in 0..5_000 {
            let slot = table.insert(Row::new(0, flow(number), u64::from(number), true)).unwrap();
            if number % 3 == 0 {
                table.remove(slot);
            }
        }
        let (mut rows, mut in_one_look) = (0, 0);
        for (slot, row) in table.iter() {
            rows += 1;
            assert_eq!(table.places.row::<Row<bool>>(slot), std::ptr::from_ref(row).cast());
            let hash = hash_flow(&table.hasher, row.flow());
            let bucket = table.by_flow.find_bucket_index(hash, |&it| it == slot).unwrap();
            let [_, first] = table.places.index_of(hash, table.by_flow.num_buckets());
            let found = std::ptr::from_ref(table.by_flow.get_bucket(bucket).unwrap()).cast::<u8>();
            // A processor looks at 16 bytes of the index at once.
            in_one_look += u64::from(first.addr().wrapping_sub(found.addr()) < 16 * size_of::<Slot>());
        }
        assert_eq!(rows, 3_333);
        assert!(in_one_look > rows * 9 / 10, "{in_one_look}");
    }
}
