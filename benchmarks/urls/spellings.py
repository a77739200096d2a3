"""Hosts and URLs in writing that some program understands otherwise than another one."""

# ruff: noqa: RUF001 - letters that look like others are what is tried

from __future__ import annotations

SPELLINGS = (
    # One number for all four.
    "2130706433", "2852039166", "0", "1", "0x7f000001", "0X7F000001", "0xa9fea9fe", "017700000001", "025177524776",
    "0x0", "00", "4294967295", "3232235777", "0xA9FEA9FE.", "0000000000000000000000000177.0.0.1",
    # Fewer than four, and octal or hexadecimal ones.
    "127.1", "127.0.1", "169.254.43518", "169.16689662", "10.1", "192.168.257", "0x7f.1", "0x7f.0.0.1", "0177.0.0.1",
    "0177.1", "0xa9.0xfe.0xa9.0xfe", "0251.0376.0251.0376", "0251.254.169.254", "0xa9.254.0251.254", "0x7f.0x0.0x1",
    "127.0.0.01", "00127.0.0.1", "169.254.169.0376",
    # A dot too many, or numbers out of range.
    "127.0.0.1.", "169.254.169.254.", "127.0.0.1..", "256.256.256.256", "1.2.3.4.5", "300.1", "425.510.425.510",
    # Letters and dots that are normalised to digits and dots.
    "①②⑦.⓪.⓪.①", "①⑥⑨。②⑤④。①⑥⑨。②⑤④", "１２７.0.0.1", "127。0。0。1", "127．0．0．1", "169｡254｡169｡254", "𝟏𝟐𝟕.𝟎.𝟎.𝟏",
    "²130706433", "⑯⑨.254.169.254", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "localhoſt", "ｌｏｃａｌｈｏｓｔ", "lo\u00adcalhost",
    "127.0.0\u200b.1",
    # IPv6, in full, shortened, with capitals, with zones.
    "[0:0:0:0:0:0:0:1]", "[0000:0000:0000:0000:0000:0000:0000:0001]", "[::0001]", "[0::1]", "[::FFFF:7F00:1]",
    "[::ffff:a9fe:a9fe]", "[0:0:0:0:0:ffff:169.254.169.254]", "[::ffff:0xa9.254.169.254]", "[::ffff:0177.0.0.1]",
    "[0:0:0:0:0:0:7f00:1]", "[64:FF9B::A9FE:A9FE]", "[64:ff9b:0:0:0:0:169.254.169.254]", "[64:ff9b:1:fffe::a9fe:a9fe]",
    "[2002:A9FE:A9FE:0:0:0:0:0]", "[FE80::1]", "[fe80::1%25lo]", "[fe80::a9fe:a9fe%lo]", "[fe80::1%251]", "[::1%25lo]",
    "[::1%lo]", "[fd00:ec2:0:0:0:0:0:254]", "[FD00:EC2::254]", "[febf::1]", "[feff::1]", "[ff02::1]", "[ff05::1:3]",
    "[::]", "[0:0:0:0:0:0:0:0]", "[v1.fe80::1]", "[::1", "::1", "[[::1]]", "[127.0.0.1]", "[::ffff:127.0.0.1]:80:80",
    # Multicast, reserved, broadcast.
    "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
)  # fmt: skip
"""Hosts as they stand in a URL; each means something inward, or nothing, to somebody."""

SPLITS = (
    "OUT\\@IN", "IN\\@OUT", "IN\\.OUT", "IN\\OUT", "OUT@IN", "OUT:80@IN", "OUT:443@IN:80", "IN@OUT", "a@OUT@IN",
    "IN#@OUT", "IN?@OUT", "IN;@OUT", "IN:@OUT", "@IN", ":@IN", "%40IN", "OUT%40IN", "OUT%2540IN", "IN%2f.OUT",
    "IN%2F@OUT", "IN%00.OUT", "IN%09.OUT", "IN%20.OUT", "IN%23@OUT", "IN%3f@OUT", "OUT%5c@IN", "IN\t", "IN\n", "IN\r",
    "IN\x00", "IN\x7f", "IN ", " IN", "169.254.\t169.254", "169.254.\n169.254", "IN\t.OUT", "IN\x00.OUT", "IN .OUT",
    "OUT\r\nHost: IN", "OUT/\r\n\r\nGET / HTTP/1.1\r\nHost: IN", "OUT/\x00", "OUT/\ud800", "IN,OUT", "IN|OUT", "IN`",
    "{IN}", "<IN>", '"IN"', "'IN'", "${IN}", "IN^", "IN!", "IN*", "(IN)", "IN~", "IN+OUT", "[IN]", "[OUT]@IN",
    "[::ffff:IN].OUT", "[::1].OUT", "[::1]OUT", "OUT[::1]", "[::1]@OUT", "[::1]:80@OUT", "[::1%00]", "[::1]:", "IN:",
    "IN:80:", "IN:80:443", "OUT／@IN", "OUT＠IN", "IN＃@OUT", "IN？@OUT", "IN：80", "IN℀.OUT", "IN⁄OUT", "IN∕.OUT",
    "OUT﹫IN", "\u202eIN", "%31%36%39.254.169.254", "169%2e254%2e169%2e254", "%6c%6f%63%61%6c%68%6f%73%74",
    "0x%61%39fea9fe", "%e2%91%a0%e2%91%a1%e2%91%a6.0.0.1", "%5b::1%5d", "IN%", "IN%zz", "/IN", "//IN", "\\\\IN",
    "\\IN", "", "?", "#", ":", ":80", "@", ".", "..", "-", "/",
)  # fmt: skip
"""What stands after `https://`, with the place of an address INside and of a name OUTside: two hosts in one URL."""

BEGINNINGS = (
    "SCHEME:", "SCHEME:/", "SCHEME:\\\\", "SCHEME:/\\", "SCHEME:///", "SCHEME:////", "SCHEME//", " SCHEME://",
    "\tSCHEME://", "\x00SCHEME://", "SCHEME\t://", "ht\ntp://", "url:SCHEME://", "SCHEME:SCHEME://", "SCHEME.://",
    "SCHEME ://", "//", "/\\", "\\\\", "://", "ⓗⓣⓣⓟ://",
)  # fmt: skip
"""What stands before an address inside, where SCHEME is the scheme."""

OTHER_SCHEMES = (
    "file:///etc/passwd", "file://169.254.169.254/x", "file:/etc/passwd", "FILE:///etc/passwd",
    "local_file:///etc/passwd", "ftp://169.254.169.254/", "ftps://10.0.0.1/", "sftp://10.0.0.1/",
    "gopher://127.0.0.1:6379/_FLUSHALL", "dict://127.0.0.1:6379/info", "ldap://127.0.0.1/", "ldaps://127.0.0.1/",
    "tftp://127.0.0.1/x", "imap://127.0.0.1/", "smtp://127.0.0.1:25/", "telnet://127.0.0.1/", "ssh://127.0.0.1/",
    "smb://127.0.0.1/share", "\\\\127.0.0.1\\share", "jar:http://127.0.0.1!/x", "netdoc:///etc/passwd",
    "view-source:http://127.0.0.1/", "php://filter/resource=x", "expect://id", "s3://bucket/key", "gs://bucket/key",
    "az://bucket/key", "hdfs://namenode/x", "ws://127.0.0.1/", "wss://127.0.0.1/",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/info", "unix:///var/run/docker.sock", "javascript:alert(1)",
    "about:blank", "blob:http://127.0.0.1/x", "mailto:a@127.0.0.1", "redis://127.0.0.1:6379", "mysql://127.0.0.1/",
    "/etc/passwd", "etc/passwd", "../../etc/passwd", "169.254.169.254", "169.254.169.254/x", "localhost:80/", "",
    "http", "https:", "://",
)  # fmt: skip
"""What is no web address, and must be nothing else either."""

OTHER_SCHEMES_BY_REDIRECT = (
    "file:///etc/passwd", "gopher://127.0.0.1:6379/_x", "ftp://10.0.0.1/", "data:;base64,AAAA",
    "jar:http://127.0.0.1!/x", "unix:///var/run/docker.sock", "javascript:1", "ws://127.0.0.1/",
)  # fmt: skip
"""Where a redirect of a web server must not lead."""
