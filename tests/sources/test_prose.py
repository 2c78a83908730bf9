import gzip

import pytest

from trivium.sources.prose import is_english, is_prose, keep_prose, read_prose

FIRST = "The first paragraph explains what the command does, and why anybody would want it."
SECOND = "The second one says which file it reads when nothing is given on the command line."


def test_pages_keep_their_paragraphs_and_lose_the_rest() -> None:
    page = f"""<html lang="en"><head><title>x</title><style>p {{ color: red }}</style></head><body>
    <nav><p>The menu of all the pages that are here, which nobody reads in a row.</p></nav>
    <h2>What it <em>does</em></h2><p>{FIRST.replace("command", "<code>com</code>mand", 1)}
    <pre>The listing is not prose, even if it reads like a sentence that has an end.</pre>
    <p>{SECOND.replace("says", "says&nbsp;")}</p><table><tr><td>{FIRST}</td></tr></table>
    <h2>Nothing follows</h2><ul><li>one two</li></ul>"""
    assert read_prose("a/b.html", page.encode()) == ["What it does", FIRST, SECOND]


def test_pages_in_other_languages_are_left_out() -> None:
    assert read_prose("a.html", f'<html lang="de"><p>{FIRST}</p>'.encode()) == []
    german = "Der erste Absatz erklärt, was der Befehl macht und warum jemand ihn haben will, und zwar sofort."
    assert not is_english([german]) and is_english([FIRST, SECOND]) and not is_english([])


def test_restructured_text_loses_directives_and_literals() -> None:
    text = f"""
=====
Title
=====

.. note:: {SECOND}

{FIRST.replace("the command", ":ref:`the command <anchor>`").replace("why", "*why*")} Like this::

    int main(void) should not be here, because it is code and not a sentence at all.

.. code-block:: c

   This is not prose, it is the inside of a directive that nobody should read here.

:field: A field list is no prose either, however long the sentence in it may become.

- {FIRST}
- {SECOND}
"""
    assert read_prose("a.rst", text.encode()) == ["Title", SECOND, FIRST + " Like this:", FIRST, SECOND]


def test_pod_keeps_text_and_drops_code() -> None:
    text = f"""package X; # The code above the documentation is not prose, it is what perl runs.

=head1 NAME of B<it>

{FIRST.replace("command", "C<< command >>").replace("why", "I<why>")}

    my $code = "is indented and is left out of the text here.";

{SECOND.replace("which", "L<which|perlfunc/which>").replace("says", "saysX<index>")}

=cut

sub code {{ "The code below the documentation is not prose either, so it goes away." }}
"""
    assert read_prose("a.pod.gz", gzip.compress(text.encode())) == ["NAME of it", FIRST, SECOND]


def test_manual_pages_lose_their_macros() -> None:
    text = f""".\\" A comment is not text, even if it is a whole sentence that goes on and on.
.TH A 1
.SH "WHAT IT DOES"
.PP
The \\fIfirst\\fP paragraph
.B explains
what the
.BR command " does" ,
and why anybody would want it\\&.
.nf
The listing is not filled and is not prose, even where it reads like a sentence.
.fi
.TP
\\fB\\-\\-file\\fP
{SECOND} It isn\\(aqt a \\(lqterm\\(rq.
"""
    assert read_prose("man1/a.1.gz", gzip.compress(text.encode())) == [
        "WHAT IT DOES",
        FIRST,
        SECOND + ' It isn\'t a "term".',
    ]


def test_unknown_formats_and_broken_bytes_give_nothing() -> None:
    assert read_prose("a.png", b"\x89PNG") == [] and read_prose("changelog", FIRST.encode()) == []
    assert read_prose("a.txt", b"\xff\xfe" + FIRST.encode()) == []
    assert read_prose("a.txt", FIRST.encode()) == [FIRST]


@pytest.mark.parametrize(
    "text",
    [
        "too short to be one.",
        "no end in sight although this line has quite a lot of words in it",
        "x = {a: 1, b: 2}; y = [c for c in d if c > 3 and e < f]; return x | y;",
        "1.0 2.0 3.0 4.0 5.0 these are the numbers of 6.0 7.0 8.0 9.0 10.0 the table 11.0 12.0.",
        "this has one word that no person wrote: " + "a" * 70 + " and then it goes on to its end.",
    ],
)
def test_what_is_no_prose(text: str) -> None:
    assert not is_prose(text)


def test_a_heading_stays_only_where_prose_follows() -> None:
    blocks = [(True, "One"), (True, "Two"), (False, FIRST), (True, "Three"), (False, "short.")]
    assert keep_prose(blocks) == ["Two", FIRST]
