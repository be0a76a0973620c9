//! Every oddity by itself, then streams nobody thought of.

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1 << 16;

fn event(data: &str) -> Item {
    Item::Event { name: None, data: data.to_owned() }
}

fn named(name: &str, data: &str) -> Item {
    Item::Event { name: Some(name.to_owned()), data: data.to_owned() }
}

fn stray(line: &str) -> Item {
    Item::Stray(line.to_owned())
}

/// What the pieces say, the end included.
fn read_pieces<'a>(limit: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Item> {
    let mut reader = SseReader::new(limit);
    let mut items = Vec::new();
    for piece in pieces {
        reader.feed(piece, &mut items);
        assert!(reader.held() <= limit);
    }
    reader.finish(&mut items);
    items
}

fn read(stream: impl AsRef<[u8]>) -> Vec<Item> {
    read_pieces(LIMIT, [stream.as_ref()])
}

#[test]
fn every_line_end_ends_a_line() {
    for end in ["\n", "\r\n", "\r"] {
        let stream = "event: a\ndata: 1\ndata: 2\n\ndata: 3\n\n".replace('\n', end);
        assert_eq!(read(stream), [named("a", "1\n2"), event("3")], "{end:?}");
    }
}

#[test]
fn a_crlf_cut_in_two_is_one_line_end() {
    let pieces: [&[u8]; 5] = [b"data: 1\r", b"", b"\ndata: 2\r", b"\n\r", b"\ndata: 3\n\n"];
    assert_eq!(read_pieces(LIMIT, pieces), [event("1\n2"), event("3")]);
}

#[test]
fn an_event_that_ends_in_carriage_returns_does_not_wait_for_more() {
    let mut items = Vec::new();
    SseReader::new(LIMIT).feed(b"data: 1\r\n\r", &mut items);
    assert_eq!(items, [event("1")]);
}

#[test]
fn a_leading_bom_is_skipped_and_a_later_one_is_not() {
    assert_eq!(read("\u{feff}data: 1\n\n"), [event("1")]);
    assert_eq!(read_pieces(LIMIT, [&b"\xef"[..], b"\xbb", b"\xbfdata: 1\n\n"]), [event("1")]);
    assert_eq!(read("\u{feff}\u{feff}data: 1\n\n"), [stray("\u{feff}data: 1")]);
    assert_eq!(read("data: 1\n\n\u{feff}data: 2\n\n"), [event("1"), stray("\u{feff}data: 2")]);
}

#[test]
fn one_space_after_the_colon_is_left_out() {
    assert_eq!(
        read("data:1\n\ndata:  2\n\ndata: a:b\n\n"),
        [event("1"), event(" 2"), event("a:b")]
    );
}

#[test]
fn empty_data_is_an_event_and_no_data_is_none() {
    assert_eq!(
        read("data\n\ndata:\ndata:\n\nevent: a\n\ndata: 1\n\n"),
        [event(""), event("\n"), event("1")]
    );
}

#[test]
fn the_last_name_counts_and_an_empty_one_takes_it_back() {
    assert_eq!(read("event: a\nevent: b\ndata: 1\n\n"), [named("b", "1")]);
    assert_eq!(read("event: a\nevent\ndata: 1\n\n"), [event("1")]);
}

#[test]
fn comments_are_told_at_once_and_do_not_part_an_event() {
    assert_eq!(
        read("data: 1\n: PROCESSING\n:\ndata: 2\n\n"),
        [Item::Comment, Item::Comment, event("1\n2")]
    );
    assert_eq!(read(b":\xff\n"), [Item::Comment], "nobody reads it");
}

#[test]
fn ids_and_retries_are_no_strays() {
    assert_eq!(read("id: 7\nretry: 100\nid\ndata: 1\n\n"), [event("1")]);
}

#[test]
fn bare_json_comes_as_whole_lines() {
    let lines = ["{", "  \"error\": {", "    \"code\": 429", "  }", "}"];
    assert_eq!(read(lines.join("\r\n")), lines.map(stray));
    assert_eq!(read("Data: 1\n data: 2\n"), [stray("Data: 1"), stray(" data: 2")]);
}

#[test]
fn a_last_event_without_its_blank_line_is_told_at_the_end() {
    assert_eq!(read("data: 1\n\ndata: 2\n"), [event("1"), event("2")]);
    assert_eq!(read("data: 1\n\nevent: a\ndata: 2"), [event("1"), named("a", "2")]);
}

#[test]
fn characters_may_be_cut_anywhere() {
    let bytes = "data: 🦀ß\n\n".as_bytes();
    assert_eq!(read_pieces(LIMIT, bytes.chunks(1)), [event("🦀ß")]);
}

#[test]
fn bad_utf8_spoils_its_event_and_no_other() {
    let bad = Item::Fault(ReadFault::BadUtf8);
    let stream = b"data: 1\n\nevent: a\ndata: 2\ndata: \xff\ndata: \xff\n{\n\ndata: 3\n\n";
    assert_eq!(read(stream), [event("1"), bad.clone(), event("3")]);
    assert_eq!(read(b"data: \xf0\x9f"), [bad], "cut in a character by the end");
}

#[test]
fn nothing_is_read_after_an_event_that_is_too_long() {
    let too_long = [Item::Fault(ReadFault::TooLong)];
    for stream in ["data: 12345\n\ndata: 2\n\n", ": 123456789\n", "123456789012345"] {
        assert_eq!(read_pieces(10, [stream.as_bytes()]), too_long, "{stream}");
    }
    let lines = "data: 1\n\ndata: 1\ndata: 2\ndata: 3\ndata: 4\n\n";
    assert_eq!(read_pieces(10, [lines.as_bytes()]), [event("1"), too_long[0].clone()]);
    assert_eq!(read_pieces(10, [&b"event: abc\ndata:12345\n\n"[..]]), too_long, "with its name");
}

#[test]
fn an_event_as_long_as_the_limit_is_read() {
    assert_eq!(
        read_pieces(10, [&b"data: 1234\n\ndata: 5678\r\n\r\n"[..]]),
        [event("1234"), event("5678")]
    );
}

#[test]
fn a_long_line_comes_whole_from_single_bytes() {
    let text = "x".repeat(1 << 20);
    let stream = format!("data: {text}\n\n");
    assert_eq!(read_pieces(2 << 20, stream.as_bytes().chunks(1)), [event(&text)]);
}

/// Streams made of what the reader looks for.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let words: [&[u8]; 16] = [
        b"data",
        b"event",
        b"id",
        b":",
        b": ",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        BOM,
        b"x",
        b"{",
        "🦀".as_bytes(),
        b"\xff",
        b"\xf0\x9f",
        b"data: 1\n\n",
    ];
    let word = prop::sample::select(words.to_vec());
    prop::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

/// Cuts `bytes` at the given places.
fn cut<'a>(bytes: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = places.iter().map(|place| place.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

proptest! {
    #[test]
    fn it_does_not_matter_how_a_stream_is_cut(
        bytes in stream(),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        limit in 1_usize..80,
    ) {
        let whole = read_pieces(limit, [&bytes[..]]);
        prop_assert_eq!(&whole, &read_pieces(limit, cut(&bytes, &places)));
        prop_assert_eq!(&whole, &read_pieces(limit, bytes.chunks(1)));
    }

    #[test]
    fn any_bytes_are_read_within_the_limit(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        size in 1_usize..40,
    ) {
        read_pieces(20, bytes.chunks(size));
    }

    #[test]
    fn what_is_written_is_read(
        events in prop::collection::vec(("[^\r\n]{0,8}", "[^\r]{0,40}"), 0..6),
        end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
    ) {
        let mut stream = String::new();
        for (name, data) in &events {
            stream.extend(["event: ", name, end]);
            for line in data.split('\n') {
                stream.extend(["data: ", line, end]);
            }
            stream += end;
        }
        let told: Vec<_> = events
            .iter()
            .map(|(name, data)| if name.is_empty() { event(data) } else { named(name, data) })
            .collect();
        prop_assert_eq!(read(&stream), told);
    }
}
