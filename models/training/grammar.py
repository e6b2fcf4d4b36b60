"""A story grammar: plots, scenes and sentence shapes that write short, coherent children's stories.

    python grammar.py OUT.txt --megabytes 20 --seed 1

Writes stories separated by lines holding only `<|endoftext|>`, no two alike. It is the first step of the training
data (see README.md); the plots themselves are in `plots.py`, the word lists in `words.py`.

The little language of a template:
    [a|b|c]      one of the alternatives, drawn at random; may be nested and empty
    {key}        a word of the story (`{A}` the hero's name, `{Ahe}` `{Ahim}` `{Ahis}`, `{Athe}` "the fox", ...)
    <A:words>    A says the words; the grammar adds "said A" in one of many orders
A word "a" before a vowel becomes "an", and sentences get their capital, after everything else.
"""
import argparse
import random
import re

import words as W

INNER = re.compile(r"\[([^\[\]]*)\]")
KEEP = "\x01"  # what follows stays small: "Where?" asked Tom
SPEECH = re.compile(r"<(\w):([^<>]*)>")


class Story:
    """One story being written: the people drawn for it, its place, things and weather, and the text so far."""

    def __init__(self, rng):
        self.rng = rng
        self.words = {}
        self.used = set()
        self.two_children = False
        self.asked = ""  # who asked the last question
        self.people = {}
        self.paragraphs = []
        self.place = rng.choice(list(W.PLACES))
        where, spots = W.PLACES[self.place]
        self.weather = rng.choice(list(W.WEATHER))
        spots = spots.split("|")
        rng.shuffle(spots)
        sky, day = W.WEATHER[self.weather]
        colours = rng.sample(W.COLOURS, 3)
        self.words.update(place=self.place, where=rng.choice(where.split("|")), sky=self.expand("[" + sky + "]"),
                          day=self.expand(day), spot1=spots[0], spot2=spots[1], spot3=spots[2], colour=colours[0],
                          colour2=colours[1], flower=rng.choice(W.FLOWERS), game=rng.choice(W.GAMES))
        things = rng.sample(list(W.THINGS), 2)
        for key, thing in zip(("thing", "thing2"), things):
            use, praise = W.THINGS[thing]
            self.words.update({key: thing, key + "use": use, key + "did": praise})
        foods = rng.sample(W.FOODS, 2)
        self.words.update(food=foods[0], food2=foods[1])

    # --- people
    def add(self, letter, sort=None, skill=None):
        """Draw a person: sort is "child", "animal" or "adult"; skill asks for an animal that has it."""
        rng = self.rng
        sort = sort or rng.choice(["child", "animal"])
        if skill:
            sort = "animal"
        adult = ""
        while True:
            if sort == "child":
                he = rng.random() < 0.5
                kind, name = ("boy", rng.choice(W.BOYS)) if he else ("girl", rng.choice(W.GIRLS))
            elif sort == "animal":
                kind = rng.choice(list(W.ANIMALS))
                if skill and skill not in W.ANIMALS[kind][0].split():
                    continue
                he = rng.random() < 0.5
                lists = (W.PET_HE, W.BOYS) if he else (W.PET_SHE, W.GIRLS)
                name = rng.choice(lists[rng.random() < 0.3])
            else:
                shape, pronoun, kind, first = rng.choice(W.ADULTS)
                he = pronoun == "he"
                adult = name = shape.format(n=rng.choice(W.BOYS if he else W.GIRLS), s=rng.choice(W.SURNAMES))
            if kind not in self.used and name.split()[-1] not in self.used:
                break
            if sort == "child" and {"boy", "girl"} <= self.used:
                self.used -= {"boy", "girl"}
                self.two_children = True
        self.used |= {kind, name.split()[-1]}
        size = "" if sort == "adult" else rng.choice(W.SIZES)
        the = "the " + kind
        was = f"a {size} {kind}".replace("  ", " ")
        if sort == "adult" and kind in ("aunt", "uncle", "grandmother", "grandfather"):
            the = name
            person = "man" if he else "woman"
            was = rng.choice(["a kind old ", "a wise old ", "a very old "] if "grand" in kind else ["a tall ", "a kind "]) + person
        food = W.ANIMALS[kind][1:] if sort == "animal" else None
        home = food[0] if food else rng.choice(["house", "cottage", "little house"])
        self.people[letter] = sort
        trait = rng.choice(W.TRAITS)
        self.words.update({
            letter: name, letter + "he": "he" if he else "she", letter + "him": "him" if he else "her",
            letter + "his": "his" if he else "her", letter + "self": "himself" if he else "herself",
            letter + "kind": kind, letter + "the": the, letter + "size": size, letter + "trait": trait,
            letter + "home": home, letter + "likes": food[1] if food else rng.choice(W.FOODS),
            letter + "was": was,
        })
        return name

    def clash(self, a, b):
        """Whether two people share a pronoun (then a template must not tell them apart by it)."""
        return self.words[a + "he"] == self.words[b + "he"]

    # --- text
    def expand(self, text):
        while "[" in text:
            text = INNER.sub(lambda m: self.rng.choice(m.group(1).split("|")), text)
        return text

    def say(self, letter, line):
        """Spoken words with their speaker, in one of several orders."""
        rng = self.rng
        line = line.strip()
        who = self.words[letter]
        if rng.random() < 0.2 and not (self.people[letter] == "child" and self.two_children):
            who = self.words[letter + "the"]
        answers = self.asked not in ("", letter) and rng.random() < 0.5

        def verb(end):
            if end == "?":
                return rng.choice(["asked", "asked", "asked", "said"])
            if answers:
                return rng.choice(["answered", "replied"])
            return rng.choice(["cried", "called", "said"]) if end == "!" else "said"

        end = line[-1]
        self.asked = letter if end == "?" else ""
        adverb = rng.choice([""] * 9 + [" softly", " quietly"]) if end == "." else ""
        soft = line[:-1] + "," if end == "." else line
        shape = rng.random()
        parts = re.split(r"(?<=[.!?])(?<!Mr\.)(?<!Mrs\.) ", line, maxsplit=1)
        if len(parts) == 2 and shape < 0.4:
            end = parts[0][-1]
            first = parts[0][:-1] + "," if end == "." else parts[0]
            return f'"{first}"{KEEP} {verb(end)} {who}{adverb}. "{parts[1]}"'
        if shape < 0.65:
            return f'"{soft}"{KEEP} {verb(end)} {who}{adverb}.'
        if shape < 0.88:
            return f'{who} {verb(end)}{adverb}, "{line}"'
        return f'"{soft}"{KEEP} {who} {verb(end)}{adverb}.'

    def text(self, template):
        t = self.expand(template)
        t = t.format_map(self.words)
        t = SPEECH.sub(lambda m: self.say(m.group(1), m.group(2)), t)
        t = re.sub(r" +", " ", t).strip()
        t = re.sub(r" +([,.!?])", r"\1", t)
        t = re.sub(r"\b([Aa]) (?=[aeiouAEIO])(?!one\b|use|unicorn)", r"\1n ", t)
        t = re.sub(r'([!?]") (?=(?:said|cried|called|asked|shouted|answered|replied) )', r"\1" + KEEP + " ", t)
        t = re.sub(r'(^|(?<!Mr)(?<!Mrs)[.!?]"? )([a-z])', lambda m: m.group(1) + m.group(2).upper(), t)
        return t.replace(KEEP, "")

    def p(self, *templates):
        """A paragraph: each template in turn; a tuple draws one of its members; None leaves it out."""
        out = []
        for t in templates:
            if isinstance(t, tuple):
                t = self.rng.choice(t)
            if t:
                out.append(self.text(t))
        if out:
            self.paragraphs.append(" ".join(out))

    def maybe(self, chance, *templates):
        if self.rng.random() < chance:
            return templates if len(templates) > 1 else templates[0]
        return None

    def finish(self):
        if self.rng.random() < 0.08:
            self.paragraphs.append("The end.")
        sep = "\n\n" if self.rng.random() < 0.85 else " "
        return sep.join(self.paragraphs)


def write(rng):
    import plots
    while True:
        story = Story(rng)
        rng.choice(plots.PLOTS)(story)
        text = story.finish()
        if 420 <= len(text) <= 1500:
            return text


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    p.add_argument("--megabytes", type=float, default=20)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    rng = random.Random(a.seed)
    size, seen = 0, set()
    with open(a.out, "w") as out:
        while size < a.megabytes * 1e6:
            text = write(rng)
            if text in seen:
                continue
            seen.add(text)
            out.write(text + "\n<|endoftext|>\n")
            size += len(text)
    print(f"{len(seen)} stories, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
