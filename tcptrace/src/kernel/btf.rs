//! A small reader of raw BTF (`/sys/kernel/btf/vmlinux`): byte offsets of struct members by name.
//!
//! One pass over the type section notes where each type begins and which id each named struct or union has;
//! members are looked at only for the few structs that are asked for. Nothing in the input is trusted: every
//! read is bounds-checked, every chain and every walk has a limit, so hostile bytes give an error, never a
//! panic, a loop or memory beyond a fixed multiple of the input's length.

use rustc_hash::FxHashMap;

/// `BTF_MAGIC` in the machine's own byte order.
const MAGIC: u16 = 0xeb9f;
/// Bytes of `struct btf_header` up to and including `str_len`.
const HEADER_BYTES: usize = 24;
/// Bytes of `struct btf_type`.
const TYPE_BYTES: usize = 12;
/// Bytes of `struct btf_member`.
const MEMBER_BYTES: usize = 12;
/// Most typedefs and qualifiers between a member and its type. The kernel itself stops at 32
/// (`MAX_RESOLVE_DEPTH`).
const MAX_CHAIN: usize = 32;
/// Anonymous structs within anonymous structs. The kernel's deepest is 5.
const MAX_NESTING: usize = 16;
/// Members looked at for one path. The kernel's largest struct has some thousand; without a limit a few
/// hundred hostile bytes of anonymous structs that name each other would take exponential time.
const MAX_MEMBERS_VISITED: usize = 100_000;

/// Kinds of BTF types (`include/uapi/linux/btf.h`), as far as they matter here.
mod kind {
    pub const INT: u8 = 1;
    pub const PTR: u8 = 2;
    pub const ARRAY: u8 = 3;
    pub const STRUCT: u8 = 4;
    pub const UNION: u8 = 5;
    pub const ENUM: u8 = 6;
    pub const FWD: u8 = 7;
    pub const TYPEDEF: u8 = 8;
    pub const VOLATILE: u8 = 9;
    pub const CONST: u8 = 10;
    pub const RESTRICT: u8 = 11;
    pub const FUNC: u8 = 12;
    pub const FUNC_PROTO: u8 = 13;
    pub const VAR: u8 = 14;
    pub const DATASEC: u8 = 15;
    pub const FLOAT: u8 = 16;
    pub const DECL_TAG: u8 = 17;
    pub const TYPE_TAG: u8 = 18;
    pub const ENUM64: u8 = 19;
}

/// Why BTF could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// Too short, or a section or type reaches beyond the end.
    #[error("BTF ends at byte {len} in the middle of {what}")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Length of the input.
        len: usize,
    },
    /// The first two bytes are not BTF's.
    #[error("not BTF of this machine: magic {found:#06x} where {MAGIC:#06x} belongs")]
    Magic {
        /// What stands there.
        found: u16,
    },
    /// A version of the format that did not exist when this was written.
    #[error("BTF version {0} is unknown (1 is known)")]
    Version(u8),
    /// A kind of type that did not exist when this was written; its length is unknown, so reading ends here.
    #[error("BTF type {id} is of unknown kind {kind}")]
    UnknownKind {
        /// The type's id.
        id: u32,
        /// The kind's number.
        kind: u8,
    },
    /// More types than the kernel allows (`BTF_MAX_TYPE`, with room to grow).
    #[error("BTF holds more than {0} types")]
    TooManyTypes(usize),
    /// A name that reaches beyond the string section.
    #[error("BTF name at {0} lies outside the string section")]
    BadName(u32),
    /// A type refers to one that does not exist.
    #[error("BTF refers to type {0}, which does not exist")]
    BadTypeId(u32),
    /// The kernel has no struct or union of this name.
    #[error("the kernel's BTF has no struct or union `{0}`")]
    NoStruct(String),
    /// The struct has no such member.
    #[error("the kernel's struct `{of}` has no member `{member}`")]
    NoMember {
        /// The struct.
        of: String,
        /// The path that was asked for.
        member: String,
    },
    /// The path goes on where the member is not a struct.
    #[error("`{member}` of the kernel's struct `{of}` goes through a member that is not a struct")]
    NotAStruct {
        /// The struct.
        of: String,
        /// The path that was asked for.
        member: String,
    },
    /// A bit field has no byte offset.
    #[error("`{member}` of the kernel's struct `{of}` is a bit field")]
    BitField {
        /// The struct.
        of: String,
        /// The path that was asked for.
        member: String,
    },
    /// Types nested or chained beyond any kernel's.
    #[error("BTF of `{of}` is nested too deeply to be a kernel's")]
    TooDeep {
        /// The struct.
        of: String,
    },
    /// The type has no size (a function, a forward declaration).
    #[error("BTF type {0} has no size")]
    NoSize(u32),
}

impl BtfError {
    /// True when the kernel merely lacks the struct or member, as opposed to BTF that cannot be read.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NoStruct(_) | Self::NoMember { .. })
    }
}

/// Most types that are accepted. `BTF_MAX_TYPE` is 2^20 − 1; kernels have 60,000 to 200,000.
const MAX_TYPES: usize = 1 << 21;

/// Where a member is and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the beginning of the outermost struct.
    pub offset: u32,
    /// Its size in bytes.
    pub size: u32,
}

/// Every tracepoint has a typedef: this and its own name.
pub(super) const TRACEPOINT_PREFIX: &str = "btf_trace_";

/// Raw BTF, indexed.
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where type `id` begins in `types`, at index `id - 1` (id 0 is void and not stored).
    starts: Vec<u32>,
    /// Named structs and unions. Where a name stands twice the first counts: pahole writes vmlinux's before
    /// those that it could not merge.
    structs: FxHashMap<&'a [u8], u32>,
    /// Typedefs of tracepoints, by the tracepoint's name.
    tracepoints: FxHashMap<&'a [u8], u32>,
}

/// `struct btf_type`, taken apart.
#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u8,
    vlen: usize,
    /// For structs: member offsets carry a bit field's size in their upper 8 bits.
    kind_flag: bool,
    /// Size in bytes or another type's id, depending on the kind.
    size_or_type: u32,
}

/// What a walk has found and how far it may still go.
struct Walk<'p> {
    of: &'p str,
    path: &'p str,
    members_left: usize,
}

impl Walk<'_> {
    fn too_deep(&self) -> BtfError {
        BtfError::TooDeep { of: self.of.to_owned() }
    }

    fn bit_field(&self) -> BtfError {
        BtfError::BitField { of: self.of.to_owned(), member: self.path.to_owned() }
    }
}

/// A member as one struct's table has it.
struct Found {
    type_id: u32,
    bit_offset: u64,
    bit_size: u32,
}

/// Reads and indexes raw BTF. The whole interface for a fuzzer: whatever the bytes, it returns.
///
/// # Errors
/// When the bytes are not BTF version 1 of this machine's byte order, are cut short, or hold a kind of type
/// whose length is not known.
pub fn parse(bytes: &[u8]) -> Result<Btf<'_>, BtfError> {
    let truncated = |what| BtfError::Truncated { what, len: bytes.len() };
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(truncated("the header"))?;
    let found = u16::from_ne_bytes([header[0], header[1]]);
    if found != MAGIC {
        return Err(BtfError::Magic { found });
    }
    if header[2] != 1 {
        return Err(BtfError::Version(header[2]));
    }
    let word =
        |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    let (header_len, type_off, type_len, str_off, str_len) = (word(4), word(8), word(12), word(16), word(20));
    let section = |off: usize, len: usize, what| {
        let start = header_len.checked_add(off).ok_or(truncated(what))?;
        let end = start.checked_add(len).ok_or(truncated(what))?;
        bytes.get(start..end).ok_or(truncated(what))
    };
    let mut btf = Btf {
        types: section(type_off, type_len, "the type section")?,
        strings: section(str_off, str_len, "the string section")?,
        starts: Vec::with_capacity(type_len / 24),
        structs: FxHashMap::default(),
        tracepoints: FxHashMap::default(),
    };
    btf.index()?;
    Ok(btf)
}

impl<'a> Btf<'a> {
    /// The single pass.
    fn index(&mut self) -> Result<(), BtfError> {
        let mut at = 0;
        while at < self.types.len() {
            let id = u32::try_from(self.starts.len() + 1).unwrap_or(u32::MAX);
            if self.starts.len() >= MAX_TYPES {
                return Err(BtfError::TooManyTypes(MAX_TYPES));
            }
            let ty = self.type_at(at)?;
            let tail = tail_bytes(ty).ok_or(BtfError::UnknownKind { id, kind: ty.kind })?;
            let end = at + TYPE_BYTES + tail;
            if end > self.types.len() {
                return Err(BtfError::Truncated { what: "a type", len: self.types.len() });
            }
            // The type section of a file of less than 4 GiB fits into u32: its length is a u32 in the header.
            self.starts.push(u32::try_from(at).map_err(|_| BtfError::TooManyTypes(MAX_TYPES))?);
            if matches!(ty.kind, kind::STRUCT | kind::UNION) && ty.name != 0 {
                let name = self.name(ty.name)?;
                self.structs.entry(name).or_insert(id);
            }
            if ty.kind == kind::TYPEDEF
                && let Some(name) = self.name(ty.name)?.strip_prefix(TRACEPOINT_PREFIX.as_bytes())
            {
                self.tracepoints.entry(name).or_insert(id);
            }
            at = end;
        }
        Ok(())
    }

    /// Number of types, void not counted.
    #[must_use]
    pub fn type_count(&self) -> usize {
        self.starts.len()
    }

    /// Byte offset and size of a member: `member("sock_common", "skc_net.net")`. A dot enters an embedded
    /// struct; anonymous structs and unions are looked through, as in C.
    ///
    /// # Errors
    /// When the kernel lacks the struct or the member, when it is a bit field, or when BTF is damaged.
    pub fn member(&self, of: &str, path: &str) -> Result<Member, BtfError> {
        let mut walk = Walk { of, path, members_left: MAX_MEMBERS_VISITED };
        let mut id = self.struct_id(of)?;
        let mut bits = 0_u64;
        let mut found = None;
        for part in path.split('.') {
            if found.is_some() {
                let ty = self.get(id)?;
                if !matches!(ty.kind, kind::STRUCT | kind::UNION) {
                    return Err(BtfError::NotAStruct { of: of.to_owned(), member: path.to_owned() });
                }
            }
            let step = self
                .find(id, part.as_bytes(), MAX_NESTING, &mut walk)?
                .ok_or_else(|| BtfError::NoMember { of: of.to_owned(), member: path.to_owned() })?;
            bits = bits.checked_add(step.bit_offset).ok_or_else(|| walk.too_deep())?;
            id = self.unqualified(step.type_id, &walk)?;
            found = Some(step);
        }
        // `split` yields at least one part, so `found` is set.
        let is_bit_field = found.is_none_or(|step| step.bit_size != 0);
        if is_bit_field || !bits.is_multiple_of(8) {
            return Err(walk.bit_field());
        }
        let offset = u32::try_from(bits / 8).map_err(|_| walk.too_deep())?;
        Ok(Member { offset, size: self.size_of(id, &walk)? })
    }

    /// Size of a struct or union in bytes.
    ///
    /// # Errors
    /// When the kernel has no such struct or union.
    pub fn struct_size(&self, of: &str) -> Result<u32, BtfError> {
        Ok(self.get(self.struct_id(of)?)?.size_or_type)
    }

    /// Id of the typedef that a tracepoint of this name has; `None` where the kernel has no such tracepoint.
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> Option<u32> {
        self.tracepoints.get(name.as_bytes()).copied()
    }

    fn struct_id(&self, name: &str) -> Result<u32, BtfError> {
        self.structs.get(name.as_bytes()).copied().ok_or_else(|| BtfError::NoStruct(name.to_owned()))
    }

    /// Finds `name` among the members of struct `id`, looking through anonymous structs and unions.
    fn find(
        &self,
        id: u32,
        name: &[u8],
        nesting: usize,
        walk: &mut Walk<'_>,
    ) -> Result<Option<Found>, BtfError> {
        let (start, ty) = self.get_at(id)?;
        if !matches!(ty.kind, kind::STRUCT | kind::UNION) {
            return Ok(None);
        }
        let first = start + TYPE_BYTES;
        // The index has checked that the whole type lies within the section.
        for member in self.types[first..first + ty.vlen * MEMBER_BYTES].chunks_exact(MEMBER_BYTES) {
            walk.members_left = walk.members_left.checked_sub(1).ok_or_else(|| walk.too_deep())?;
            let word =
                |at: usize| u32::from_ne_bytes([member[at], member[at + 1], member[at + 2], member[at + 3]]);
            let (name_off, type_id, raw) = (word(0), word(4), word(8));
            let (bit_offset, bit_size) = if ty.kind_flag { (raw & 0x00ff_ffff, raw >> 24) } else { (raw, 0) };
            let bit_offset = u64::from(bit_offset);
            if name_off != 0 {
                if self.name(name_off)? == name {
                    return Ok(Some(Found { type_id, bit_offset, bit_size }));
                }
                continue;
            }
            let Some(nesting) = nesting.checked_sub(1) else { return Err(walk.too_deep()) };
            let inner = self.unqualified(type_id, walk)?;
            if let Some(found) = self.find(inner, name, nesting, walk)? {
                return Ok(Some(Found { bit_offset: found.bit_offset + bit_offset, ..found }));
            }
        }
        Ok(None)
    }

    /// Follows typedefs, qualifiers and tags to the type itself.
    fn unqualified(&self, mut id: u32, walk: &Walk<'_>) -> Result<u32, BtfError> {
        for _ in 0..MAX_CHAIN {
            let ty = self.get(id)?;
            match ty.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = ty.size_or_type;
                }
                _ => return Ok(id),
            }
        }
        Err(walk.too_deep())
    }

    /// Size of a type in bytes, array lengths multiplied.
    fn size_of(&self, mut id: u32, walk: &Walk<'_>) -> Result<u32, BtfError> {
        let mut count = 1_u64;
        for _ in 0..MAX_CHAIN {
            id = self.unqualified(id, walk)?;
            let (start, ty) = self.get_at(id)?;
            let element = match ty.kind {
                kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 | kind::FLOAT => {
                    ty.size_or_type
                }
                // BTF is of the running kernel, so its pointers are as wide as ours.
                kind::PTR => size_of::<usize>() as u32,
                kind::ARRAY => {
                    id = self.word(start + TYPE_BYTES)?;
                    count = count.saturating_mul(u64::from(self.word(start + TYPE_BYTES + 8)?));
                    continue;
                }
                _ => return Err(BtfError::NoSize(id)),
            };
            return u32::try_from(count.saturating_mul(u64::from(element))).map_err(|_| walk.too_deep());
        }
        Err(walk.too_deep())
    }

    fn get(&self, id: u32) -> Result<Type, BtfError> {
        self.get_at(id).map(|(_, ty)| ty)
    }

    /// The type and where it begins. Void (id 0) is not a type that anything here can use.
    fn get_at(&self, id: u32) -> Result<(usize, Type), BtfError> {
        let start = (id as usize)
            .checked_sub(1)
            .and_then(|index| self.starts.get(index))
            .map(|&start| start as usize)
            .ok_or(BtfError::BadTypeId(id))?;
        Ok((start, self.type_at(start)?))
    }

    fn type_at(&self, at: usize) -> Result<Type, BtfError> {
        let info = self.word(at + 4)?;
        Ok(Type {
            name: self.word(at)?,
            kind: (info >> 24 & 0x1f) as u8,
            vlen: (info & 0xffff) as usize,
            kind_flag: info >> 31 == 1,
            size_or_type: self.word(at + 8)?,
        })
    }

    fn word(&self, at: usize) -> Result<u32, BtfError> {
        self.types
            .get(at..)
            .and_then(<[u8]>::first_chunk)
            .map(|word| u32::from_ne_bytes(*word))
            .ok_or(BtfError::Truncated { what: "a type", len: self.types.len() })
    }

    fn name(&self, at: u32) -> Result<&'a [u8], BtfError> {
        let rest = self.strings.get(at as usize..).ok_or(BtfError::BadName(at))?;
        let end = rest.iter().position(|&byte| byte == 0).ok_or(BtfError::BadName(at))?;
        Ok(&rest[..end])
    }
}

/// Raw BTF with these typedefs under these ids, from 1 on, and forward declarations without a name under all lower
/// ones. `None` without any, or where two have the same id.
pub(super) fn only_typedefs(mut names: Vec<(u32, String)>) -> Option<Vec<u8>> {
    names.sort_unstable();
    let (mut types, mut strings): (Vec<u32>, _) = (Vec::new(), vec![0_u8]);
    let info = |kind: u8| u32::from(kind) << 24;
    let last = names.last()?.0;
    types.reserve(last as usize * TYPE_BYTES / size_of::<u32>());
    let mut next_id = 1;
    for (id, name) in names {
        for _ in 0..id.checked_sub(next_id)? {
            types.extend([0, info(kind::FWD), 0]);
        }
        types.extend([u32::try_from(strings.len()).ok()?, info(kind::TYPEDEF), 0]);
        strings.extend(name.bytes().chain([0]));
        next_id = id.checked_add(1)?;
    }
    let [type_bytes, string_bytes] = [types.len() * size_of::<u32>(), strings.len()].map(u32::try_from);
    let type_bytes = type_bytes.ok()?;
    let mut out = Vec::with_capacity(HEADER_BYTES + type_bytes as usize + strings.len());
    out.extend(MAGIC.to_ne_bytes());
    // The version, and no flags.
    out.extend([1, 0]);
    for word in [HEADER_BYTES as u32, 0, type_bytes, type_bytes, string_bytes.ok()?].into_iter().chain(types)
    {
        out.extend(word.to_ne_bytes());
    }
    out.extend(strings);
    Some(out)
}

/// Bytes that follow `struct btf_type` (`btf_type_size()` of libbpf); `None` for unknown kinds.
fn tail_bytes(ty: Type) -> Option<usize> {
    Some(match ty.kind {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => ty.vlen * 12,
        kind::ENUM | kind::FUNC_PROTO => ty.vlen * 8,
        kind::PTR
        | kind::FWD
        | kind::TYPEDEF
        | kind::VOLATILE
        | kind::CONST
        | kind::RESTRICT
        | kind::FUNC
        | kind::FLOAT
        | kind::TYPE_TAG => 0,
        _ => return None,
    })
}

#[cfg(test)]
#[path = "btf_tests.rs"]
mod tests;
