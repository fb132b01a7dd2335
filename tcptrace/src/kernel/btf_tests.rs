use super::*;

/// Builds raw BTF by hand.
#[derive(Default)]
struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Builder {
    fn new() -> Self {
        Self { strings: vec![0], ..Self::default() }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        at
    }

    fn words(&mut self, words: &[u32]) {
        words.iter().for_each(|word| self.types.extend_from_slice(&word.to_ne_bytes()));
    }

    fn raw(&mut self, name: &str, kind: u8, flag: bool, vlen: u32, size_or_type: u32, tail: &[u32]) -> u32 {
        let name = self.name(name);
        self.words(&[name, u32::from(kind) << 24 | u32::from(flag) << 31 | vlen, size_or_type]);
        self.words(tail);
        self.count += 1;
        self.count
    }

    fn int(&mut self, size: u32) -> u32 {
        self.raw("int", kind::INT, false, 0, size, &[0])
    }

    /// Members as (name, type, raw offset word).
    fn aggregate(
        &mut self,
        kind: u8,
        name: &str,
        flag: bool,
        size: u32,
        members: &[(&str, u32, u32)],
    ) -> u32 {
        let tail: Vec<u32> =
            members.iter().flat_map(|&(name, ty, offset)| [self.name(name), ty, offset]).collect();
        self.raw(name, kind, flag, members.len() as u32, size, &tail)
    }

    fn structure(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        self.aggregate(kind::STRUCT, name, false, size, members)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC.to_ne_bytes());
        out.extend_from_slice(&[1, 0]);
        for word in [24, 0, self.types.len() as u32, self.types.len() as u32, self.strings.len() as u32] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        out.extend_from_slice(&self.types);
        out.extend_from_slice(&self.strings);
        out
    }
}

/// A `sock_common` in small: a name behind two anonymous levels, a typedef'd inner struct, arrays, qualifiers.
fn sample() -> Vec<u8> {
    let mut b = Builder::new();
    let int = b.int(4);
    let short = b.int(2);
    let volatile = b.raw("", kind::VOLATILE, false, 0, int, &[]);
    let array = b.raw("", kind::ARRAY, false, 0, 0, &[short, int, 5]);
    let pointer = b.raw("", kind::PTR, false, 0, int, &[]);
    let inner = b.structure("", 8, &[("daddr", int, 0), ("rcv_saddr", volatile, 32)]);
    let union = b.aggregate(kind::UNION, "", false, 8, &[("pair", short, 0), ("", inner, 0)]);
    let net = b.structure("net_ref", 16, &[("pad", int, 0), ("net", pointer, 64)]);
    let net_t = b.raw("possible_net_t", kind::TYPEDEF, false, 0, net, &[]);
    b.structure("sock", 64, &[("head", array, 0), ("", union, 128), ("skc_net", net_t, 256)]);
    // kind_flag: the upper 8 bits of the offset word are the bit field's size.
    b.aggregate(kind::STRUCT, "flags", true, 8, &[("plain", short, 16), ("bit", int, 1 << 24 | 3)]);
    // A second definition of the same name does not count.
    b.structure("sock", 4, &[("head", int, 32)]);
    b.raw("handler", kind::FUNC, false, 1, 0, &[]);
    b.raw("e", kind::ENUM64, false, 1, 8, &[0, 1, 2]);
    b.raw("tag", kind::DECL_TAG, false, 0, int, &[0]);
    b.bytes()
}

#[test]
fn members_are_found_through_anonymous_levels_dots_and_typedefs() {
    let bytes = sample();
    let btf = parse(&bytes).unwrap();
    assert_eq!(btf.type_count(), 15);
    assert_eq!(btf.member("sock", "daddr").unwrap(), Member { offset: 16, size: 4 });
    assert_eq!(btf.member("sock", "rcv_saddr").unwrap(), Member { offset: 20, size: 4 });
    assert_eq!(btf.member("sock", "pair").unwrap(), Member { offset: 16, size: 2 });
    assert_eq!(btf.member("sock", "head").unwrap(), Member { offset: 0, size: 10 });
    assert_eq!(btf.member("sock", "skc_net.net").unwrap(), Member { offset: 40, size: 8 });
    assert_eq!(btf.member("flags", "plain").unwrap(), Member { offset: 2, size: 2 });
    assert_eq!(btf.struct_size("sock").unwrap(), 64);
}

#[test]
fn errors_name_the_struct_and_the_member() {
    let bytes = sample();
    let btf = parse(&bytes).unwrap();
    let text = |of, path| btf.member(of, path).unwrap_err().to_string();
    assert_eq!(text("nonsense", "x"), "the kernel's BTF has no struct or union `nonsense`");
    assert_eq!(text("sock", "skc_x"), "the kernel's struct `sock` has no member `skc_x`");
    assert_eq!(text("sock", "skc_net.x"), "the kernel's struct `sock` has no member `skc_net.x`");
    assert_eq!(text("flags", "bit"), "`bit` of the kernel's struct `flags` is a bit field");
    assert!(matches!(btf.member("sock", "daddr.x"), Err(BtfError::NotAStruct { .. })));
    assert!(matches!(btf.member("sock", "skc_net.net.x"), Err(BtfError::NotAStruct { .. })));
    assert!(matches!(btf.member("sock", ""), Err(BtfError::NoMember { .. })));
    assert!(btf.member("sock", "skc_x").unwrap_err().is_absence());
    assert!(!btf.member("flags", "bit").unwrap_err().is_absence());
}

#[test]
fn headers_that_are_not_btf_are_refused() {
    let good = sample();
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        parse(&bad).map(|_| ()).unwrap_err()
    };
    assert!(matches!(with(0, b"\x7fE"), BtfError::Magic { .. }));
    assert!(matches!(with(0, &MAGIC.swap_bytes().to_ne_bytes()), BtfError::Magic { .. }));
    assert_eq!(with(2, &[2]), BtfError::Version(2));
    for at in [4, 8, 12, 16, 20] {
        assert!(
            matches!(with(at, &u32::MAX.to_ne_bytes()), BtfError::Truncated { .. }),
            "header word at {at}"
        );
    }
    assert!(matches!(parse(&[]).map(|_| ()), Err(BtfError::Truncated { .. })));
}

#[test]
fn an_unknown_kind_is_named() {
    let mut b = Builder::new();
    b.int(4);
    b.raw("new", 25, false, 3, 0, &[]);
    let error = parse(&b.bytes()).map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "BTF type 2 is of unknown kind 25");
}

#[test]
fn chains_and_nesting_without_end_are_errors() {
    let mut b = Builder::new();
    // typedef 1 → typedef 1, and a struct that holds itself anonymously, many times over.
    b.raw("loop", kind::TYPEDEF, false, 0, 1, &[]);
    b.structure("self", 8, &[("", 2, 0), ("", 2, 0), ("", 2, 0), ("", 2, 0)]);
    b.structure("chain", 8, &[("x", 1, 0), ("v", 0, 0), ("far", 9999, 0), ("f", 4, 0)]);
    b.raw("fwd", kind::FWD, false, 0, 0, &[]);
    b.raw("", kind::ARRAY, false, 0, 0, &[5, 5, 2]);
    b.structure("arrays", 8, &[("a", 5, 0)]);
    let bytes = b.bytes();
    let btf = parse(&bytes).unwrap();
    assert!(matches!(btf.member("self", "x"), Err(BtfError::TooDeep { .. })));
    assert!(matches!(btf.member("chain", "x"), Err(BtfError::TooDeep { .. })));
    assert!(matches!(btf.member("arrays", "a"), Err(BtfError::TooDeep { .. })));
    assert_eq!(btf.member("chain", "v"), Err(BtfError::BadTypeId(0)));
    assert_eq!(btf.member("chain", "far"), Err(BtfError::BadTypeId(9999)));
    assert_eq!(btf.member("chain", "f"), Err(BtfError::NoSize(4)));
}

#[test]
fn exponential_nesting_is_cut_short() {
    // 17 structs, each holding the next one 200 times without a name: 200^16 members if walked.
    let mut b = Builder::new();
    for level in 1..=17_u32 {
        let members = vec![("", (level + 1).min(17), 0); 200];
        b.structure(if level == 1 { "bomb" } else { "" }, 8, &members);
    }
    let bytes = b.bytes();
    let begin = std::time::Instant::now();
    assert!(matches!(parse(&bytes).unwrap().member("bomb", "x"), Err(BtfError::TooDeep { .. })));
    assert!(begin.elapsed().as_secs() < 2);
}

#[test]
fn every_cut_of_a_good_file_is_an_error() {
    let bytes = sample();
    for len in 0..bytes.len() {
        assert!(parse(&bytes[..len]).is_err(), "cut at {len}");
    }
}

fn ask_everything(bytes: &[u8]) {
    if let Ok(btf) = parse(bytes) {
        for (of, path) in [("sock", "daddr"), ("sock", "skc_net.net"), ("sock", "head"), ("flags", "bit")] {
            let _ = btf.member(of, path);
        }
        let _ = btf.struct_size("sock");
        let _ = crate::kernel::offsets::Layout::from_btf(&btf, 4096);
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        ask_everything(&bytes);
    }

    #[test]
    fn no_damage_panics(hits in proptest::collection::vec((0_usize..10_000, proptest::num::u8::ANY), 1..20)) {
        let mut bytes = sample();
        for (at, value) in hits {
            let len = bytes.len();
            bytes[at % len] = value;
        }
        ask_everything(&bytes);
    }

    /// A header that fits, so that the damage is in the types.
    #[test]
    fn no_type_section_panics(words: Vec<u32>) {
        let mut b = Builder::new();
        b.name("sock");
        b.words(&words);
        ask_everything(&b.bytes());
    }
}
