"""The plots of the story grammar: each function writes one story into a `grammar.Story`.

Every plot has a beginning, a wish, a trouble, somebody who helps, an end and often a moral; scenes marked `maybe`
come and go. Names, things and places are drawn once and come back to the end. `grammar.py` calls them.
"""

# skill: (where the thing got stuck, why the hero cannot reach it, how the helper gets it)
STUCK = {
    "climb": ("[high up in a tree|at the top of a tall tree|on a high branch|on a high roof]",
              "It was [much |far |]too high [to reach|for {Ahim}].",
              "{C} climbed up, [step by step|higher and higher|quick as a flash], and [brought|carried|took] the {thing} down."),
    "fly": ("[high up in a tree|on top of a tall rock|on the roof of the mill|on the highest branch]",
            "{A} jumped and jumped, but [it was too high|{Ahe} could not reach it].",
            "{C} [spread {Chis} wings|flapped {Chis} wings] and flew up, and soon {Che} [came back with|dropped] the {thing}."),
    "swim": ("[in the middle of the pond|out on the water|on a stone in the river|on the far side of the water]",
             "The water was [too deep|deep and cold], and {A} could not swim so far.",
             "{C} [jumped|slipped|splashed] into the water and swam [out|straight] to the {thing} and [pulled|pushed|brought] it back."),
    "dig": ("[under a heap of earth|deep in a hole|at the bottom of a sandy hole|under the soft ground]",
            "{A} tried to [reach it|pull it out], but [it was too deep|the hole was too deep].",
            "{C} [dug and dug|began to dig] until the [earth|sand] flew, and at last the {thing} [came out|lay in front of them]."),
    "strong": ("[under a big log|behind a heavy stone|under a fallen tree|under a heavy cart]",
               "{A} pushed [with all {Ahis} might|as hard as {Ahe} could], but nothing moved.",
               "{C} [took a deep breath and|put a shoulder to it and] pushed, and [slowly|with a loud creak] it rolled away. There was the {thing}."),
    "small": ("[deep in a narrow crack|inside a hollow log|behind a tiny door in the wall|in a thorny bush]",
              "{A} was too big to [get in|fit through].",
              "{C} was so small that {Che} [slipped|crept|squeezed] right in, and soon {Che} [came out|crawled out] with the {thing}."),
}


def opening(s, a="A", plain=False):
    """The first sentences: who, where, and perhaps what kind of person."""
    s.words["a"] = a
    w = s.words
    v = {k: w[a + k] for k in ("was", "he", "his", "him", "trait", "kind", "home", "size")}
    n = w[a]
    once = "Once upon a time"
    first = s.rng.choices([
        f"{once}, there [was|lived] {v['was']} named {n}.[ {v['he']} lived {w['where']}.| {n} lived {w['where']}.]",
        f"{once}, {w['where']}, there [lived|was] {v['was']} [named|called] {n}.",
        f"{once}, {v['was']} [named|called] {n} lived {w['where']}.",
        f"{once} there [was|lived] a {v['trait']} {v['size']} {v['kind']} [named|called] {n}.[ {v['he']} lived {w['where']}.|]",
        f"There once [was|lived] {v['was']} [named|called] {n}[ who lived {w['where']}|].",
        f"Long ago, {w['where']}, there lived {v['was']} [named|called] {n}.",
        f"[Not so long ago|Long, long ago|Many years ago], {v['was']} [named|called] {n} lived {w['where']}.",
        f"{n} was a {v['trait']} {v['size']} {v['kind']} who lived {w['where']}.",
        f"{n} was {v['was']}. [{v['he']} lived {w['where']}.|{n} lived {w['where']}.]",
        f"There was once a {v['trait']} {v['size']} {v['kind']} [named|called] {n}. {v['he']} lived {w['where']}.",
        f"One {w['day']}[morning|day], {v['was']} named {n} [woke up early|looked out of the window|sat in front of {v['his']} {v['home'] if s.people[a] != 'animal' else 'home'}].",
        f"{w['where']} there lived {v['was']} [named|called] {n}.",
    ], [7, 6, 6, 6, 2, 2, 2, 2, 2, 2, 2, 1])[0]
    more = (
        f"{n} was [very |always |]{v['trait']}[ and {s.rng.choice(['kind', 'curious', 'full of ideas', 'good at heart'])}|].",
        f"Everyone [liked|knew] {n}, because {v['he']} was so {v['trait']}.",
        f"[{v['he']}|{n}] loved to [{'play ' + w['game']}|sing in the morning|look at the clouds|help at home|listen to stories].",
        f"[Every day|Each morning], {n} [went out to play|took a long walk|looked for something new].",
        None, None)
    return (first, None if plain else s.rng.choice(more))


def moral(s, *lines):
    """One of the closing lines, or a quiet last sentence."""
    general = ["[From that day on|After that|Ever after], {A} and {B} were [the best of|very good|close] friends.", "{A} never forgot that day.",
               "That night, {A} [slept very well|fell asleep with a smile|dreamed of the day].",
               "And {A} [was happy|smiled all the way home|was happy for a long, long time].",
               "And they all [lived happily ever after|went home happy]."]
    chosen = list(lines) * 2 + general
    return s.rng.choice(chosen)


def two(s, skill=None, third=None):
    """Hero A and friend B, with different pronouns most of the time, and perhaps a helper C."""
    s.add("A")
    s.add("B", s.rng.choice(["animal", "animal", "child"]))
    if skill or third:
        s.add("C", third, skill)


GIVEN = ("{Ahe} had got it from {Ahis} [grandmother|grandfather|mother|father|best friend].",
         "It was a present from {Ahis} [grandmother|grandfather|mother|father|aunt|uncle].",
         "{A} had made it [with {Ahis} own hands|all by {Aself}|last winter].",
         "{Ahe} had found it [on the beach|in the attic|at the market|under a tree] [long ago|last summer].",
         "It {thingdid}.", "{A} liked to {thinguse}.", "Every day {Ahe} liked to {thinguse}.")


def lost_thing(s):
    skill = s.rng.choice(list(STUCK))
    two(s, skill)
    where, why, how = STUCK[skill]
    stuck = s.text(where).lower()
    s.words["stuck"] = stuck
    s.p(*opening(s), ("{A} had a {colour} {thing}. ", "{A}'s [dearest|favorite|best] thing was a {colour} {thing}.",
                      "{A} owned a {colour} {thing} and loved it [very much|more than anything]."), GIVEN)
    s.p("One {day}[morning|day|afternoon], the {thing} was gone.", s.maybe(.5, "{sky}"),
        ("{A} looked {spot1}, but it was not there. [Then {Ahe}|{Ahe}] looked {spot2}, but [it was not there either|there was nothing].",
         "{Ahe} looked {spot1}. {Ahe} looked {spot2}. {Ahe} even looked {spot3}. [No {thing}!|But the {thing} was nowhere.]",
         "{A} searched {spot1} and {spot2}, but [found only leaves|found nothing|the {thing} was not there]."),
        s.maybe(.5, "{A} [sat down and began to cry|felt very sad|wanted to cry]."))
    s.p(("[Just then|Soon|After a while], {Bwas} named {B} came by.", "{Bwas} named {B} [heard {Ahim}|saw {Ahim}] and came over.",
         "{Ahis} friend {B}, {Bwas}, [came along|came running]."),
        ("<B:What is wrong, {A}?>", "<B:Why are you so sad?>", "<B:Can I help you?>"),
        ("<A:I have lost my {colour} {thing}. I looked everywhere.>", "<A:My {thing} is gone!>", "<A:I cannot find my {colour} {thing}.>"),
        ("<B:I saw it! It is {stuck}.>", "<B:I think I saw a {colour} {thing} {stuck}. Come with me!>",
         "<B:Let us look together.> They walked [and walked|a long way], and then {B} saw the {thing} {stuck}."))
    s.p(("There it was, {stuck}. " if s.rng.random() < .5 else "They ran there together. ") + why,
        ("<B:We need help. Let us ask {C} the {Ckind}.>", "<B:I know who can help us. My friend {C} can!>",
         "Then they saw {Cwas} named {C}. <A:Please, can you help us?>", "So they went to {C}, {Cwas}, and asked for help."),
        ("<C:Of course I can help.>", "<C:That is easy for me!>", "<C:Wait here. I will try.>"), how)
    s.p(("<A:Thank you, {C}! Thank you, {B}!>", "{A} hugged the {thing} [tightly|and laughed]. <A:Thank you, my friends!>",
         "{A} was so happy that {Ahe} danced. <A:You are good friends.>"),
        s.maybe(.5, "That evening, they [shared {food}|ate {food} together], and {A} let them [hold|look at] the {thing}.",),
        moral(s, "From then on, {A} [took good care of|never lost] the {colour} {thing}[ again|].",
              "{A} learned that [friends make hard things easy|it is good to ask for help].",
              "And the {colour} {thing} [stayed safe at home|was never lost again]."))


def picnic(s):
    two(s)
    s.p(*opening(s), ("One {day}[day|morning], {A} [made|baked|packed] some {food} [for a picnic|for lunch] and took a {colour} basket along.",
                      "{Ahis} mother gave {Ahim} some {food} in a {colour} basket[ for the day|]."))
    s.p(s.maybe(.6, "{sky}"), ("{A} [walked|went] [to a quiet place|down the path] and sat down {spot1}.", "{A} found a good place {spot1}."),
        ("There {Ahe} met {Bwas} named {B}.", "[Then|Just then] {Bwas} named {B} came by.", "Somebody was already there. It was {B}, {Bwas}."),
        ("{B} looked at the basket. <B:That smells good. I have not eaten all day.>", "<B:I am so hungry. I lost my lunch in the river.>",
         "{B} looked thin and tired. <B:I have nothing to eat.>"))
    s.p(("{A} looked at the {food}. It was only enough for one.", "{A} thought for a moment. {Ahe} was hungry too.",
         "At first, {A} wanted to keep all the {food}. [But then {Ahe} looked at {B}.|Then {Ahe} felt sorry for {B}.]"),
        ("<A:You can have half of my {food}.>", "<A:Come and sit with me. We will share.>", "<A:Here, take some {food}. It tastes better together.>"),
        ("<B:You are very kind.>", "<B:Thank you! I will not forget this.>"),
        "[They ate and talked|They sat side by side and ate] until [the basket was empty|nothing was left].")
    s.p(*s.rng.choice([
        ("On the way home, it began to rain [hard|]. {A} [could not see the path|did not know the way].", "<B:Follow me! I know the way.>",
         "{B} [led|took] {A} [safely home|to {Ahis} door], and the {colour} basket [did not even get wet|swung between them]."),
        ("The next day, {A} was ill and had to stay in bed.", "There was a knock at the door. It was {B}, with a big bowl of {food2}.",
         "<B:You shared with me. Now I share with you.>"),
        ("Some days later, {A} tripped and [dropped|lost] the {colour} basket in the river. {B} saw it and [ran|hurried] to help.",
         "<B:I have it! Here is your basket.>", "{A} laughed. <A:Now I must thank you.>"),
        ("When they got up, {B} [pointed to the hill|smiled]. <B:Now I will show you something.>",
         "{B} took {A} to a secret place full of sweet [berries|plums|apples], and they filled the {colour} basket to the top."),
    ]))
    s.p(moral(s, "{A} learned that [sharing makes friends|what you give comes back].", "After that, {A} always packed enough {food} for two.",
              "And every [week|month|Sunday] they had a picnic together.", "<A:Half of the {food} and a new friend. That is better than a full basket.>"))


FEARS = [("the dark", "[in a dark cave|in the dark wood|in the dark cellar]", "[It was black as ink inside|There was no light at all]", "the dark is only [a place where the stars can shine|the other side of the light]"),
         ("deep water", "[on the other side of the stream|on a stone in the water|out on the pond]", "[The water was deep and cold|The water rushed and splashed]", "the water [carries those who stay calm|was not so deep at all]"),
         ("high places", "[high up on the cliff|on a high wall|at the top of the old tower]", "[It was a long way down|Everything below looked tiny]", "one [small step after another goes a long way|should look up and not down]"),
         ("thunder", "[out in the storm|on the hill in the thunder|far out in the rain]", "[The thunder rolled and rumbled|Boom, went the thunder]", "thunder is only [a loud noise|the drum of the clouds]"),
         ("the old bridge", "[on the far side of the old bridge|in the middle of the old bridge]", "[The old bridge creaked|The boards of the bridge shook]", "the bridge was [stronger than it looked|old, but good]"),
         ("the big wood", "[in the middle of the big wood|deep in the big wood]", "[The trees were tall and whispered|Strange noises came from everywhere]", "the wood was [full of friends|only full of trees]")]


def fear(s):
    two(s)
    what, where, scary, truth = s.rng.choice(FEARS)
    s.words.update(fear=what, there=s.text(where).lower())
    s.p(*opening(s), ("But {A} was afraid of {fear}.", "There was only one thing that {A} was afraid of: {fear}.", "{A} had a secret. {Ahe} was afraid of {fear}."),
        ("The others [laughed at {Ahim}|made fun of {Ahim}], but {Ahis} friend {B}, {Bwas}, never [did|laughed].",
         "{Ahis} best friend was {B}, {Bwas}.", "{Ahe} told it only to {Ahis} friend {B}, {Bwas}."))
    s.p("One {day}[evening|day|afternoon], {B} did not come [home|to play].", s.maybe(.4, "{sky}"),
        ("{A} [called|waited], but nobody answered. Then {Ahe} heard a small voice.", "{A} went to look for {B}, and then {Ahe} heard a cry."),
        "<B:Help! Help! I am stuck!>", "It was {B}, {there}.")
    s.p(scary + ", and {A}'s [legs|knees|paws] began to shake.".replace("|paws", "|paws" if s.people["A"] == "animal" else ""),
        ("<A:I cannot do it.> But then {Ahe} thought of {B}, all alone.", "{A} wanted to run away. But {B} was {Ahis} friend.",
         "{Ahe} closed {Ahis} eyes and took a deep breath. <A:I am coming, {B}!>"),
        ("{A} took a {colour} {thing} along to feel brave.", "{Ahe} held {Ahis} {colour} {thing} tight.", None),
        ("Step by step, {Ahe} went on.", "{Ahe} sang a little song and went on.", "{Ahe} counted to ten, and then {Ahe} went."),
        ("At last {Ahe} reached {B} and [pulled {Bhim} free|took {Bhim} by the hand].", "There was {B}! {A} [pulled|pushed] and pulled until {B} was free."))
    s.p(("<B:You came! I thought you were afraid of {fear}.>", "<B:Thank you, {A}. You are so brave!>"),
        ("<A:I was afraid. But I came anyway.>", "<A:I still am, a little. But you needed me.>", "<A:I was more afraid for you than of {fear}.>"),
        "They went home together" + s.rng.choice([".", " and ate {food}.", ", {A} in front and {B} behind."]),
        moral(s, "{A} had learned that " + truth + ".", "Being brave does not mean that you are never afraid.", "After that day, {A} was not so afraid of {fear} any more.",
              "And nobody laughed at {A} again."))


def new_friend(s):
    two(s)
    s.p(*opening(s), "One {day}[day|morning], [somebody new|{Bwas} named {B}] " + "[moved in next door|came to live nearby|came to live in the {place}]." .replace("{place}", s.place),
        "[The new one's name was {B}, and {Bhe} was very quiet.|{B} was quiet and shy.|{B} did not know anybody.]" if s.rng.random() < .7 else "It was {B}, and {Bhe} was [all alone|very shy].")
    s.p(("{B} sat alone {spot1} and watched the others play {game}.", "Every day, {B} sat {spot1} with a {colour} {thing} and talked to nobody.",
         "The others played {game}, but {B} only watched from {Bhis} place {spot1}."),
        s.maybe(.5, "<A:Why does nobody play with {B}?>", "[\"Because {Bhe} is new,\" said the others.|The others only shrugged.]"),
        ("{A} [thought about it|felt sorry for {B}] and walked over.", "So {A} went to {B} and sat down beside {Bhim}."))
    s.p("<A:Hello, my name is {A}. What is your name?>", "<B:I am {B}.>",
        ("<A:That is a [nice|fine] {thing}.>", "<A:Do you want to play {game} with us?>", "<A:Would you like some {food}?>"),
        ("{B} smiled for the first time.", "{B} looked up and smiled.", "<B:I would like that very much.>"),
        s.rng.choice(["It turned out that {B} was very good at {game}.", "{B} showed {A} the {colour} {thing}. It {thingdid}.", "{B} knew many funny stories, and {A} laughed and laughed."]) if s.rng.random() < .9 else None)
    s.p(("Soon the others came too.", "One by one, the others came to see."), ("<B:You can all play with us.>", "<A:This is {B}, my new friend.>"),
        s.maybe(.6, "They played {game} until [the sun went down|it was dark]."), s.maybe(.5, "On the way home, {B} gave {A} the {colour} {thing2}. <B:This is for you, because you came to me first.>"))
    s.p(moral(s, "{B} was never lonely again.", "It takes only one kind word to make a friend.", "{A} learned that [a shy friend is still a friend|it is easy to say hello].", "And {B} was glad to live {where}."))


def race(s):
    two(s)
    s.add("C")
    s.p(*opening(s), ("{A} could run very fast, and {Ahe} knew it.", "{A} was the fastest of all, and {Ahe} told everyone.", "{A} loved to run."),
        "{B}, {Bwas}, was [slow but steady|not so fast|slower, but {Bhe} never gave up].")
    s.p("One {day}day, there was a [big |]race. The prize was a {colour} {thing}.", s.maybe(.5, "{sky}"),
        ("<A:I will win. Nobody is as fast as I am.>", "<A:That {thing} is as good as mine!>"), ("<B:We will see.>", "<B:I will try my best.>", "<B:I only want to reach the end.>"),
        "[\"One, two, three, go!\" cried {C}, {Cwas}.|{C}, {Cwas}, gave the sign, and off they went.]")
    s.p(*s.rng.choice([
        ("{A} ran ahead and soon was far in front. {Ahe} looked back and laughed.", "<A:I have time for a rest.>", "{Ahe} lay down {spot1} and fell asleep.",
         "{B} went on and on, step by step. {Bhe} passed {A}, who was still [sleeping|snoring].", "When {A} woke up, it was too late. {B} had [won the race|crossed the line first]!"),
        ("{A} was in front when {Ahe} heard a cry. {B} had fallen {spot1} and hurt {Bhis} leg.", "{A} looked at the end of the road. It was so near! But then {Ahe} turned around.",
         "<A:Lean on me, {B}. We will go together.>", "So they came in last, side by side."),
        ("Half way, {A} tripped over a root and fell.", "{B} could have gone on, but {Bhe} stopped. <B:Are you hurt? Take my hand.>",
         "<A:But you could win the {thing} now!>", "<B:I would rather have a friend than a {thing}.>", "They crossed the line together."),
    ]))
    s.p(("{C} [gave|handed] the {colour} {thing} to {B}." , "Everybody clapped, and {C} gave them the {colour} {thing} [to share|for both of them]."),
        ("<A:I am sorry that I boasted.>", "<A:You did well, {B}.>", "<A:You are the real winner.>"), ("<B:Let us {thinguse} together.>", "<B:Next time we run together.>"),
        moral(s, "{A} learned that [slow and steady is good too|there are better things than winning].", "The {thing} stood in the window for all to see.", "They were friends ever after."))


def storm(s):
    two(s)
    s.p(*opening(s), ("{Ahis} {Ahome} was small, but [warm and dry|cozy].", "{A} had a warm {Ahome} and plenty of {food}.") if s.people["A"] == "animal" else "{Ahis} {Ahome} was small, but [warm and dry|cozy].",
        "Not far away lived {B}, {Bwas}.", s.maybe(.5, "They [did not talk much|hardly knew each other|sometimes played {game}]."))
    s.p(("One night, a [great|terrible|big] storm came.", "In the evening, dark clouds came over the hill. Soon a storm was howling."),
        ("The wind [howled|roared] and the rain [beat on the roof|came down in buckets].", "Lightning flashed, and the thunder went boom."),
        ("Then {A} heard a knock. It was {B}, wet and shaking.", "Knock, knock! {B} stood outside, wet from head to toe."),
        ("<B:The storm has [taken|broken] my home. May I come in?>", "<B:A tree fell on my home. I have nowhere to go.>"))
    s.p(("<A:Come in, come in! There is room for two.>", "<A:Of course! Sit by the fire.>"), ("{A} gave {B} a {colour} blanket and some hot {food}.", "{A} wrapped {B} in a {colour} blanket."),
        s.maybe(.6, "<B:I saved only my {colour2} {thing}.> [It was wet, but not broken.|{A} dried it with care.|They put it near the fire.]"),
        s.maybe(.5, "To forget the storm, they told each other stories [all night long|until they fell asleep]."))
    s.p(("In the morning, the storm was over.", "The next morning was quiet and bright."), ("<A:Today we will build you a new home.>", "<A:Now let us mend your home.>"),
        ("They carried [wood|sticks|straw] and stones all day.", "{A} held the boards and {B} hammered.", "{B} brought sticks, and {A} made a roof of leaves."),
        s.maybe(.4, "Other friends came to help, and one brought {food2} for all."), "In the evening, the new home was [ready|done], and it was better than the old one.")
    s.p(s.maybe(.6, "<B:How can I thank you?>", "<A:Come and visit me when the sun shines, too.>"), s.maybe(.4, "{B} hung the {colour} blanket over the door, so that {Bhe} would always remember."),
        moral(s, "{A} and {B} were good neighbors from that day on.", "A friend in a storm is a friend forever.", "When the wind howled again, they were not afraid, because they had each other."))


def surprise(s):
    two(s)
    s.add("C")
    s.p(*opening(s), ("{Ahis} best friends were {B}, {Bwas}, and {C}, {Cwas}.", "{A} had two good friends: {B}, {Bwas}, and {C}, {Cwas}."),
        "[Tomorrow was|Soon it would be|Today was] {A}'s birthday.")
    s.p(("In the morning, {A} ran to {B}. <A:Do you want to play {game}?>", "{A} went to {B}'s door and knocked. <A:Come out and play {game}!>"),
        ("<B:I am sorry, I have no time today.>", "<B:Not now, {A}. I am busy.>"), s.maybe(.6, "{B} hid something {colour} behind {Bhis} back."),
        "So {A} went to {C}.", ("<C:I cannot play, I have to go to the market.>", "<C:Not today, {A}. Maybe tomorrow.>"))
    s.p(("{A} walked home slowly.", "{A} sat down {spot1}, all alone."), ("<A:They have forgotten my birthday.>", "<A:Nobody wants to play with me.>"),
        ("A tear ran down {Ahis} cheek.", "{Ahe} felt very sad.", "{sky} But {A} did not feel [like playing|happy]."),
        s.maybe(.5, "{Ahe} watched the clouds and waited for the day to end."))
    s.p(("When {Ahe} opened the door, it was dark inside. Then a light went on.", "In the evening, there was a knock at the door.", "Then {Ahe} heard whispers {spot2}."),
        ("\"Surprise!\" [cried|shouted] {B} and {C}.", "\"Happy birthday, {A}!\" [cried|shouted] {B} and {C}."),
        ("On the table stood {food} and {food2}.", "{C} had made {food}, and there were candles everywhere."),
        ("{B} gave {Ahim} a {colour} {thing}. <B:I made it for you. That is why I had no time.>", "<B:This is for you.> It was a {colour} {thing}!"))
    s.p(("<A:I thought that you had forgotten me.>", "<A:You did not forget!>"), ("<C:We could never forget you.>", "<C:How could we forget our best friend?>"),
        s.maybe(.6, "They ate the {food} and played {game} until late."), moral(s, "It was the best birthday of all.", "{A} [kept|treasured] the {colour} {thing} for years.", "{A} learned that [good friends do not forget|a secret can be a happy one]."))


def broken(s):
    two(s, third=s.rng.choice(["adult", "animal", "child"]))
    s.p(*opening(s), ("{Ahis} friend {B}, {Bwas}, had a {colour} {thing}.", "{A} often played with {B}, {Bwas}. {B} had a {colour} {thing}."),
        ("It {thingdid}, and {B} loved it.", "{B} had got it from {Bhis} [grandmother|grandfather|mother|father]."),
        "[Near by|Not far away|In the next house] lived {C}, {Cwas}, who could [mend almost anything|fix what was broken].")
    s.p("One {day}day, {A} [took|borrowed] the {thing} [without asking|while {B} was away].", ("{Ahe} only wanted to {thinguse}.", "<A:I will just {thinguse}, only once.>"),
        ("But {Ahe} slipped, and crack! The {thing} was broken.", "But {Ahe} dropped it on a stone, and it broke in two."),
        ("{A} was so scared that {Ahe} hid it {spot1}.", "{A}'s heart beat fast. {Ahe} quickly hid the {thing} {spot1}."))
    s.p(("Soon {B} came back. <B:Where is my {thing}?>", "<B:Have you seen my {colour} {thing}?>"), ("<A:I do not know.>", "<A:No, I have not seen it.>"),
        "But [it was not true, and|the lie felt like a stone in {Ahis} belly, and] {A} [felt bad|could not eat|could not sleep].",
        s.maybe(.6, "{A} went to {C} and told {Chim} everything. <C:The truth is hard to say, but it makes the heart light.>"))
    s.p(("{A} went to {B}. <A:I must tell you something. I broke your {thing}, and I hid it. I am sorry.>", "<A:I lied to you, {B}. I took your {thing} and broke it.>"),
        ("{B} was quiet for a while.", "{B} was angry at first. Then {Bhe} saw that {A} was crying.", "{B} looked at the pieces and sighed."),
        ("<B:Thank you for telling me the truth.>", "<B:I am sad about the {thing}. But I am glad that you told me.>"),
        ("They took the pieces to {C}.", "<B:Maybe {C} can mend it. Let us go there.>"),
        ("{C} had good glue and steady hands.", "<C:We can fix that. {A}, you hold this piece, and {B}, you hold that one.>"), "[Soon|Before long], the {thing} was whole again.")
    s.p(s.maybe(.5, "One could still see a thin line, but {B} [did not mind|liked it]. <B:That line will remind us of today.>"),
        moral(s, "{A} never told a lie again.", "{A} learned to ask first[, and to tell the truth|].", "And now they [{thinguse}|play with the {thing}] together.".replace("{thinguse}", s.words["thinguse"].replace(" it", " the {thing}") if " it" in s.words["thinguse"] else "share the {thing}"),
              "The truth had [mended more than the {thing}|made their friendship stronger]."))


def present(s):
    two(s, third="adult")
    thing, stuff = s.rng.choice([
        (["flute", "drum", "boat", "spoon", "whistle", "wagon", "toy train"], "{C} gave {Ahim} some wood and showed {Ahim} how to [carve|cut] it."),
        (["kite", "map", "hat", "lantern", "book"], "{C} gave {Ahim} [paper, string and paint|some {colour2} paper and glue]."),
        (["scarf", "blanket", "hat", "doll", "puppet", "kite"], "{C} gave {Ahim} some {colour2} cloth and a needle.")])
    s.words["thing"] = s.rng.choice(thing)
    s.p(*opening(s), "Soon it would be the birthday of {Ahis} friend {B}, {Bwas}.", ("{A} wanted to give {Bhim} something [special|fine].", "<A:What can I give {B}?>"))
    s.p("At the market, {A} saw a {colour} {thing}.", "<A:{B} would love it! How much is it?>", "[\"Ten coins,\" said the [man|woman] at the stall.|It cost ten coins.]", ("But {A} had only [two coins|one coin|three coins].", "{A} looked into {Ahis} pocket. There was only one coin."),
        "{Ahe} walked away sadly.")
    s.p("On the way, {Ahe} met {C}, {Cwas}.", ("<C:Why do you look so sad, {A}?>", "<C:What is the matter, child?>") if s.people["A"] == "child" else "<C:Why do you look so sad, {A}?>",
        "<A:I have no present for {B}.>", ("<C:The best present is one that you make yourself. Come, I will help you.>", "<C:You do not need coins. You have two good hands and a good heart.>") if s.people["A"] == "child" else "<C:The best present is one that you make yourself. Come, I will help you.>",
        stuff,
        ("{A} worked all [day|evening].", "It took a long time, but {A} did not give up."), "At last it was done: a {colour2} {thing}[, not perfect, but made with love|].")
    s.p(("On the birthday, everyone ate {food}, and there were many presents.", "{B}'s birthday came, and all the friends ate {food}."), ("{A} was shy and held {Ahis} present behind {Ahis} back.", "{A} gave {Bhim} the present last of all."),
        ("{B} opened it and {Bhis} eyes grew big.", "{B} opened the paper carefully."), ("<B:A {colour2} {thing}! Did you make it yourself?>", "<B:You made this for me? It is wonderful!>"),
        "<A:Yes, and {C} helped me.>" if s.rng.random() < .7 else "{A} nodded.")
    s.p(moral(s, "Of all the presents, {B} loved the {colour2} {thing} most.", "{A} learned that a gift comes from the heart.", "{B} kept it [all {Bhis} life|next to {Bhis} bed]."))


GOALS = [("a [blue|white|golden] flower that could heal", "{C} was ill, and only the flower could help", "the flower"), ("the old well of clear water", "the river had dried up, and {C} was thirsty", "the water"),
         ("the wise old owl on the hill", "{C} had lost {Chis} voice, and only the owl knew why", "the answer"), ("the sweet herbs on the far hill", "{C} had a cough that would not go away", "the herbs")]


def journey(s):
    two(s, third="adult")
    goal, why, it = s.rng.choice(GOALS)
    s.words.update(goal=s.expand(goal), it=it)
    s.p(*opening(s), s.rng.choice(["{A} lived with {C}, {Cwas}.", "{A} often visited {C}, {Cwas}."]), "One {day}day, " + why + ".",
        ("<A:I will go and find {goal}.>", "<A:I am small, but I can walk far. I will find {goal}.>"), s.maybe(.6, "{C} gave {Ahim} some {food} and a {colour} {thing}. <C:Take this with you, and be careful.>") or "{A} took some {food} and a {colour} {thing} along.")
    s.p(("First {A} came to a [wide|deep] river.", "Soon {A} came to a river, and there was no bridge."), ("There sat {B}, {Bwas}, who looked [hungry|sad].", "On the bank sat {Bwas} named {B}."),
        ("<B:I have had nothing to eat today.>", "<B:Please, do you have something to eat?>"), ("{A} gave {Bhim} half of the {food}.", "<A:Take some of my {food}.>"),
        ("<B:Thank you! I know where the stones are. I will take you across.>", "<B:You are kind. I will come with you and show you the way.>"), "Together they crossed the river.")
    s.p(("Then the path went up and up.", "Then came a steep hill.", "After that they came to a dark wood."), s.maybe(.5, "{sky}"), ("{A} was tired, but {B} sang a song, and they went on.", "<A:I cannot go on.> <B:Yes, you can. Just one more step.>"),
        s.rng.choice(["It grew dark, and they slept {spot1}.", "The {colour} {thing} fell down, but {B} caught it.", "They lost the way, but {B} asked a bird."]),
        ("At last, they found {goal}.", "And there, in the morning light, they saw {goal}."))
    s.p(("{A} thanked {B} and ran home with {it}.", "They hurried home with {it}."), ("When {C} [saw {Ahim}|had {it}], [everything was well again|all was well].", "{C} smiled, and soon all was well."),
        ("<C:You went all that way for me?>", "<C:How did you do it, little one?>"), ("<A:I was not alone. {B} helped me.>", "<A:I shared my {food}, and I found a friend.>"),
        moral(s, "The {colour} {thing} hung over {Ahis} bed, and it always made {Ahim} think of the journey.", "Kindness had shown {A} the way.", "And {B} came to visit often."))


def lost_animal(s):
    s.add("A", "child")
    s.add("B", "animal")
    s.add("C", "adult")
    s.words["Bbig"] = {"lamb": "sheep", "kitten": "cat"}.get(s.words["Bkind"], s.words["Bkind"])
    s.p(*opening(s), "One {day}[morning|day|afternoon], {A} heard a [small cry|soft sound] {spot1}.", ("It was {Bwas}, [cold and hungry|all alone|wet and shaking].", "There sat {Bwas} with a hurt [leg|foot]."))
    s.p(("<A:Poor little thing! Where is your mother?>", "<A:Do not be afraid. I will help you.>"), "{A} wrapped {Bthe} in a {colour} [scarf|blanket|cloth] and took {Bhim} home.",
        ("{Ahe} gave {Bhim} some warm milk, and named {Bhim} {B}.", "<A:I will call you {B}.> {B} ate a little and fell asleep."), s.maybe(.5, "Every day, {A} fed {B} and [sang to {Bhim}|told {Bhim} stories]."))
    s.p("But {B} often sat at the window and looked out.", "{A} [ran|went] to {C}, {Cwas}.", ("<A:I think {B} misses [someone|home].>", "<A:Why is {B} so sad?>"), "<C:Every {Bkind} has a family, {A}.>",
        "{A} was sad, because {Ahe} loved {B}. But {Ahe} knew what was right.", s.maybe(.5, "<C:You have a good heart.>"))
    s.p(("So they went {spot2} and waited.", "The next day, {A} carried {B} {spot2}."), s.maybe(.5, "{sky}"), ("[Soon|After a while], a big {Bbig} came out of the [bushes|grass].", "There was a rustle, and out came a big {Bbig}."),
        "It was {B}'s mother! {B} [ran|hurried] to her.", ("<A:Goodbye, {B}. Come and see me sometimes.>", "<A:Be happy, little {B}!>"), "[{A} waved until they were gone.|{A} cried a little and smiled a little.]")
    s.p(("The next spring, {A} heard a sound at the door. There was {B}, big and strong.", "And sometimes, in the evening, {B} came to the garden, and {A} gave {Bhim} {food}.", "From then on, {B} came back every [week|Sunday|spring] to visit."),
        moral(s, "{A} knew that [a true friend comes back|to love means to let go].", "<A:I knew you would come back.>"))


SKILLS = [("swim", "in the pond", "{Ahe} splashed and sank", "do not fight the water. Let it carry you"), ("ride a bicycle", "on the road", "{Ahe} fell into the grass", "look ahead and not at your feet"),
          ("whistle", "by the fence", "only air came out", "make your lips round, and blow softly"), ("dance", "in the yard", "{Ahe} tripped over {Ahis} own feet", "listen to the music first, and then move"),
          ("bake bread", "in the kitchen", "the bread was hard as a stone", "give the dough time to rest"), ("paint", "at the table", "the paint ran all over the paper", "use less water, and look closely"),
          ("play the violin", "in the room", "it squeaked like a mouse", "play slowly, one note after another"), ("skate", "on the ice", "{Ahe} sat down hard on the ice", "bend your knees and lean forward"),
          ("juggle", "in the square", "the balls rolled away", "begin with only one ball"), ("read", "by the lamp", "the letters danced before {Ahis} eyes", "take one letter at a time")]


def skill(s):
    two(s, third="adult")
    what, where, fail, tip = s.rng.choice(SKILLS)
    s.words.update(what=what, there=where)
    s.p(*opening(s), ("{A} wanted to learn to {what}.", "More than anything, {A} wished to {what}.", "{Ahis} friend {B}, {Bwas}, could {what} very well. {A} could not, and {Ahe} wanted to learn it."))
    s.p("One {day}day, {A} tried it {there}.", "But " + fail + ".", "{Ahe} tried again, but [it was no better|it went wrong again|it was even worse].",
        ("{B} saw it and laughed. " if s.rng.random() < .4 else "") + s.rng.choice(["<A:I will never learn to {what}.>", "<A:It is too hard for me!>"]), s.maybe(.5, "{A} threw down {Ahis} {colour} [hat|scarf|cap] and sat down {spot1}."))
    s.p(("{C}, {Cwas}, had watched {Ahim}.", "Then {C}, {Cwas}, came by."), s.rng.choice(["<C:Nobody can do it on the first day. {tip}.>", "<C:I know how you feel. {tip}.>", "<C:Do not give up. {tip}.>"]).replace("{tip}", tip[0].upper() + tip[1:]), ("{A} wiped {Ahis} eyes and tried again.", "So {A} got up and tried once more."),
        ("It went a little better.", "This time, it nearly worked."), ("Every day, {A} practiced {there}.", "Day after day, {Ahe} practiced, and {C} watched."))
    s.p(("Then, one {day}[morning|day], it worked!", "And one day, all at once, {A} could do it."), ("<A:Look, {C}! I can {what}!>", "<A:I can do it! I can {what}!>"), ("<C:I knew that you could.>", "{C} clapped [and laughed|for joy]."),
        ("{B} was amazed. <B:Can you teach me how you did it so well?>", "<B:I am sorry that I laughed. You are very good.>", "<B:That was wonderful, {A}.>"), s.maybe(.5, "To celebrate, they all ate {food}."))
    s.p(moral(s, "{A} learned that [practice makes a master|one must never give up].", "And whenever something was hard, {A} remembered: try once more.", "Later, {A} taught [{B}|many others] to {what}."))


def seed(s):
    two(s, third="adult")
    s.p(*opening(s), ("One {day}day, {C}, {Cwas}, gave {Ahim} a tiny seed.", "One {day}day, {A} found a tiny seed {spot1} and showed it to {C}, {Cwas}."), ("<A:What will it be?>", "<A:It is so small!>"), ("<C:Plant it and wait. Then you will see.>", "<C:Give it water and sun, and be patient.>") )
    s.p("{A} planted the seed {spot2} and gave it water from a {colour} [cup|bucket|can].", ("Every morning, {Ahe} went to look. There was nothing.", "One day passed, and then another. Nothing grew."),
        "{B}, {Bwas}, [came by and laughed|shook {Bhis} head].", ("<B:That is only a stone! Come and play {game}.>", "<B:Nothing will ever grow there.>"), ("<A:I will wait a little longer.>", "<A:Seeds need time.>"))
    s.p(s.maybe(.6, "Then came a storm, and {A} put a basket over the place to keep it safe.", ) or s.maybe(.6, "Then it did not rain for many days, and {A} carried water every evening."), "At last, a small green tip came out of the ground.",
        ("<A:It is growing!>", "{A} danced for joy."), "It grew and grew[, higher than the fence|, taller than {A}|].",
        "In the end, it was a [big|fine|tall] " + s.words.setdefault("plant", s.rng.choice(["apple tree", "sunflower", "pumpkin plant", "rose bush", "plum tree", "bean plant", "cherry tree", "berry bush"])) + ".")
    s.p("{B} came again and [stared|could not believe it].", ("<B:I was wrong. It is beautiful!>", "<B:I am sorry that I laughed.>"), ("<A:Come, we will share it.>", "<A:You can help me to water it.>"),
        s.maybe(.5, "{C} made {food} for everyone, and they sat beside the {plant}."), moral(s, "{A} learned that good things take time.", "Beside the {plant}, {A} planted the next seed, and this time {B} waited, too.", "Whoever waits and cares will see wonders."))


def wish(s):
    two(s)
    s.add("C", s.rng.choice(["animal", "adult"]))
    s.p(*opening(s), "One {day}day, {A} found a {colour} {thing} {spot1}.", ("When {Ahe} touched it, it began to glow.", "{Ahe} rubbed it clean, and it [spoke|began to shine]."), "[\"You have three wishes,\" it said.|A small voice said, \"You may have three wishes.\"]")
    s.p(("<A:I wish for a mountain of {food}!>", "<A:First, I wish for as much {food} as I can eat!>"), "At once, the table was full of {food}, and {A} ate until {Ahis} belly hurt.", ("<A:Now I wish for a big house, just for me!>", "<A:I wish to be rich!>"),
        ("And there it was. But it was [empty and quiet|so big and so quiet].", "And so it was. But there was nobody to talk to."), s.maybe(.4, "{sky}"))
    s.p("Then {B}, {Bwas}, came by, with [tears in {Bhis} eyes|a sad face].", ("<B:{C} is ill, and nobody can help.>", "<B:{C} fell from the hill and cannot walk.>"), "{C}, {Cwas}, was a good friend of them both." if s.rng.random() < .8 else "Everybody loved {C}, {Cwas}.",
        "{A} looked at the {colour} {thing}. There was only one wish left.", ("{Ahe} could wish for anything in the world.", "{Ahe} could have [gold|a ship|a castle]."), ("<A:I wish that {C} is well again.>", "But {A} did not have to think long. <A:Make {C} well again!>"))
    s.p("The {thing} shone once more, and then it was only a {thing}.", ("Soon {C} came running.", "At once, {C} [stood up|was well] and laughed."), ("<C:What happened? I feel fine!>", "<C:Who has helped me?>"), ("<B:It was {A}. {Ahe} gave {Ahis} last wish for you.>", "<B:{A} did it!>"),
        s.maybe(.5, "They ate the {food} together, and {A} was happier than ever."), moral(s, "{A} learned that the best wish is one for somebody else.", "The big house was gone, but {A} did not miss it.", "And {A} kept the {colour} {thing}, just to remember."))


def boast(s):
    two(s)
    s.p(*opening(s, plain=True), ("{A} thought that {Ahe} was the best at everything.", "{A} liked to boast."), ("<A:Nobody has such a {colour} {thing} as I have!>", "<A:I am the cleverest of all!>"), "{B}, {Bwas}, [did not say anything|only smiled].")
    s.p("One {day}day, {A} wanted to show off. <A:I can cross the stream in one jump!>", ("<B:Be careful, {A}. The bank is wet.>", "<B:Please do not do it. It is too far.>"), ("<A:You are only afraid!>", "{A} laughed."),
        "{Ahe} ran, jumped, and splash! {A} fell right into the [mud|water].", s.maybe(.6, "The {colour} {thing} [floated away|fell in, too].") , "<A:Help! I am stuck!>")
    s.p("{B} did not laugh. {Bhe} [found a long stick|threw a rope] and held it out.", ("<B:Hold on tight!>", "<B:Take it, and I will pull.>"), "{B} pulled and pulled, until {A} sat on the bank, wet and muddy.", s.maybe(.5, "Then {B} went and got the {thing} back, too.") )
    s.p(("<A:Why did you help me? I was not nice to you.>", "<A:I said bad things, and still you helped me.>"), ("<B:Because you needed help.>", "<B:That is what friends do.>"), ("{A} looked at {Ahis} muddy feet. <A:I am sorry.>", "{A} was ashamed. <A:You are better than I am.>"),
        s.maybe(.5, "They went home and had {food} by the fire."), moral(s, "After that, {A} did not boast any more.", "{A} learned that [kind deeds are worth more than big words|those who boast often fall].", "And when others boasted, {A} only smiled and thought of the mud."))


def moon(s):
    two(s)
    s.add("C")
    sky = s.rng.choice(["the moon", "the moon", "the evening star"])
    s.words["moon"] = sky
    s.p(*opening(s), "Every [night|evening], {A} looked up at the sky.", "<A:I wish I could touch {moon}.>")
    s.p("{A} told {Ahis} friend {B}, {Bwas}.", ("<B:Let us try! We need something high.>", "<B:We could climb the hill.>"), "So they climbed the [highest hill|tallest tree|old tower], but {moon} was still far away.",
        "Then {C}, {Cwas}, came. <C:What are you doing up there?>", "<A:We want to touch {moon}.>", ("<C:Stand on my back!>", "<C:I have a ladder.>"), "{A} stood on top and stretched out {Ahis} arms, but it was not enough." if s.people["A"] == "child" else "{A} stood on top and stretched as high as {Ahe} could, but it was not enough.")
    s.p(s.maybe(.7, "Crash! They all fell down [into the soft grass|in a heap]. [They laughed and laughed.|Nobody was hurt.]"), ("{B} pointed at the pond. <B:Look, {A}! There is {moon}, in the water.>", "Then {A} saw something in the puddle. <A:Look! There is {moon}, right in front of us!>"),
        "{A} bent down and touched the water with one finger. {moon} [shook|danced] and [laughed|grew still again].", ("<A:I touched it!>", "<A:Now I have touched {moon}!>"))
    s.p(s.maybe(.5, "{C} took out some {food}, and they sat by the water and ate."), ("<C:It was near us all the time.>", "<B:And it was more fun with three.>"), s.maybe(.5, "When {A} went to bed, {moon} [looked in at the window|was still there]. <A:Good night.>"),
        moral(s, "{A} learned that a wish can come true in another way.", "Sometimes, what we look for is very near."))


def music(s):
    two(s, third="adult")
    thing = s.rng.choice(["flute", "violin", "drum", "whistle", "harp"])
    s.words["m"] = thing
    s.p(*opening(s), "{A} had a {colour} {m}, and {Ahe} played it every [day|evening].", ("But {Ahe} was too shy to play for others.", "{Ahe} played only when nobody was near.") , ("Only {Ahis} friend {B}, {Bwas}, knew about it.", "Nobody knew about it but {B}, {Bwas}."))
    s.p("One {day}day, {C}, {Cwas}, [said that there would be a feast|planned a big feast].", ("<C:We need music! Who can play?>", "<C:But we have nobody who makes music.>"), "Everyone looked at the ground.", ("<B:{A} can play the {m}!>", "{B} [pushed|poked] {A}. <B:You can do it.>"), ("{A} turned red. <A:No, I cannot.>", "<A:I am too shy. What if I play it wrong?>"))
    s.p("<B:Then I will stand beside you. Play only for me.>", s.maybe(.5, "All night, {A} could not sleep."), "On the evening of the feast, {Ahis} hands shook." if s.people["A"] == "child" else "On the evening of the feast, {Ahis} heart beat fast.", ("{A} looked at {B}, and {B} nodded.", "{B} smiled at {Ahim}."),
        "{Ahe} lifted the {colour} {m} and began. First the music was soft, and then [stronger|louder and brighter].", ("People stopped talking.", "Everybody grew quiet."), ("Then they began to dance.", "Some had tears in their eyes, and some began to dance."))
    s.p(("When it was over, all clapped.", "\"More, more!\" cried [everyone|the crowd|the children]."), ("<C:That was the best music we ever had.>", "<C:Why did you hide that gift so long?>"), ("<A:I was not afraid, because {B} was with me.>", "<A:Thank you, {B}. Without you I would not have dared.>"), s.maybe(.5, "Then they all ate {food}."),
        moral(s, "After that, {A} played the {m} for everyone.", "{A} learned that a gift grows when it is shared.", "And {B} was always in the first row."))


def treasure(s):
    two(s)
    s.p(*opening(s), "One {day}day, {A} and {Ahis} friend {B}, {Bwas}, found an old [map|paper] {spot1}.", ("<B:Look, there is a red cross! That must be a treasure.>", "<A:It is a treasure map!>"), ("<A:Let us find it!>", "<B:Let us go at once!>"))
    s.p("First the map led them {spot2}.", s.maybe(.5, "{sky}"), ("There they found a {colour} {thing} with a note.", "There lay a {colour} {thing}, and under it was a note."), "[\"Take this with you,\" said the note.|The note said, \"You will need this.\"]", "{B} carried the {thing}, and they went on.",
        ("Then they had to cross a stream. {A} went first and held out a stick.", "Then the path was full of thorns. <A:Stay behind me, {B}.>"))
    s.p("At last, they came to the red cross. It was {spot3}.", "They dug and dug, until they hit something hard. It was a [wooden|rusty|big] box!", ("<B:What if it is full of gold?>", "<A:What do you think is inside?>"),
        "But the box was locked. " + s.rng.choice(["Then {B} looked into the {colour} {thing}, and there was a key!", "{A} turned the {colour} {thing} around, and a small key fell out of it."]),
        s.rng.choice(["In the box there was no gold. There was a {colour2} {thing2} and a letter.", "In the box lay a {colour2} {thing2} and a letter."]))
    s.p("{A} read the letter. \"The [real|true] treasure is the friend who came with you.\"", ("{A} looked at {B}, and {B} looked at {A}. They began to laugh.", "<B:Then I had my treasure before we started.>", "<A:It is true. That was the best day ever.>"),
        s.maybe(.5, "They ate {food} and put the letter back for the next ones."), moral(s, "The {colour2} {thing2} belonged to both of them.", "And they hid the map again, so that other friends could find it."))


def helper(s):
    """Somebody small helps somebody big."""
    s.add("A", "animal", "small")
    s.add("B", "animal", "strong")
    s.p(*opening(s), "Near by lived {B}, a big {Bkind}.", ("{B} thought that {A} was too small to be of any use.", "<B:You are so small! What can you do?>"), ("<A:Small ones can help, too.>", "{A} only smiled."))
    s.p("One {day}day, {B} was walking {spot1} and [fell into a net|got caught in a rope|stepped into a trap of ropes].", ("{Bhe} pulled and pulled, but the ropes only grew tighter.", "The more {Bhe} pulled, the tighter it held."), "<B:Help! Is anybody there?>", s.maybe(.4, "{sky}"), "Nobody came. [The sun went down.|It grew dark.]")
    s.p("But {A} had good ears. {Ahe} ran as fast as {Ahe} could.", "<A:Hold still, {B}. I will bite through the rope.>", ("{A} bit and gnawed, [one rope after another|all night long].", "It took a long time, and {Ahis} teeth hurt, but {Ahe} did not stop."), "[At last|In the morning], snap! The last rope broke, and {B} was free.")
    s.p(("<B:You have saved me. I was wrong about you.>", "<B:I laughed at you, and you came anyway.>"), ("<A:Friends do not count how big they are.>", "<A:I told you that small ones can help.>"), s.maybe(.6, "{B} carried {A} home on {Bhis} back, and they shared some {food}."),
        moral(s, "Nobody is too small to help.", "From then on, {B} never laughed at small ones again.", "And wherever {B} went, {A} rode on {Bhis} back."))


def snow(s):
    two(s)
    s.words.update(sky="Snow was falling softly.", day="[snowy|cold|white] ")
    s.words["day"] = s.expand(s.words["day"])
    s.p(*opening(s), "One {day}[morning|day], everything was white. It had snowed all night!", "{A} put on {Ahis} {colour} scarf and ran to {B}, {Bwas}.", ("<A:Wake up, {B}! Let us build a snowman!>", "<A:Come out, {B}! It has snowed!>"))
    s.p(("They rolled one big ball and one small ball.", "They rolled the snow until they had three big balls."), "{B} found two black stones for the eyes, and {A} found a [carrot|stick] for the nose.", ("<B:He looks cold.>", "<B:Something is missing.>"), "So {A} took off {Ahis} {colour} scarf and put it around the snowman's neck.", s.maybe(.5, "<A:Now he is happy. We will call him Mr. Snow.>"))
    s.p(s.maybe(.7, "Then they threw snowballs and played {game} in the snow."), "When it grew dark, {A} was so cold that {Ahe} shook.", ("<B:Come to my home. I have hot {food}.>", "<B:You gave your scarf away. Now take mine.>"), "They sat by the fire and looked out at the snowman.")
    s.p(("Some days later, the sun came out, and the snowman grew smaller and smaller.", "One warm morning, the snowman was gone."), "Only the {colour} scarf lay in the wet grass.", ("<A:I will miss him.>", "{A} was sad."), ("<B:He is not gone. He is in the stream now, and he will come back next winter.>", "<B:Next winter we will build him again.>"),
        "{A} smiled and picked up the {colour} scarf.", moral(s, "And the next winter, they did.", "{A} kept the scarf for the next snowman."))


def lost_way(s):
    two(s)
    s.p(*opening(s), "One {day}[day|afternoon], {A} went out to [pick berries|look for mushrooms|find flowers]{more}.".replace("{more}", s.rng.choice([" with a {colour} basket", " and took {Ahis} {colour} lantern along", ""])),
        ("{Ahe} walked [on and on|farther and farther], and did not look back.", "{Ahe} followed a [white butterfly|blue bird] and forgot the time."))
    s.p(("When {Ahe} looked up, [it was getting dark|a thick fog had come], and {Ahe} did not know the way home.", "Suddenly nothing looked the same. {A} was lost."), ("<A:Which way is home?>", "<A:Oh no, I am lost!>"),
        ("{Ahe} went {spot1}, and then {spot2}, but [it was the wrong way|the path was gone].", "{Ahe} sat down {spot1} and [listened|cried a little]."))
    s.p(("Then a small light came nearer. It was {B}, {Bwas}.", "Then {Ahe} heard steps. It was {B}, {Bwas}."), ("<B:Who is there? You look cold.>", "<B:What are you doing here, so late?>"), ("<A:I am {A}, and I have lost my way.>", "<A:I cannot find the way home.>"),
        ("<B:Do not worry. I know every path here.>", "<B:I will show you the way. Stay close to me.>"), s.maybe(.5, "{B} gave {Ahim} some {food} to eat on the way."), s.maybe(.5, "As they walked, {B} told {Ahim} how to find the way by the stars."))
    s.p(("At last, they saw a light in a window.", "Soon {A} saw the roof of {Ahis} home."), ("<A:That is my home! Thank you, {B}.>", "<A:There it is! You found it!>"), ("<B:Come and see me again. But come by day!>", "<B:It was nice to walk with you.>"),
        "The next day, {A} [brought|carried] {food2} to {B} to say thank you.", moral(s, "After that, {A} always looked back to remember the way.", "That is how {A} and {B} became friends."))


def noise(s):
    two(s)
    s.words["n"] = s.rng.choice(["Tap, tap, tap", "Scratch, scratch", "Whoo, whoo", "Bump, bump", "Crack, crack"])
    s.p(*opening(s), "One {day}night, {A} could not sleep. There was a strange noise outside.", "\"{n}!\" it went.", ("{A} pulled the {colour} blanket over {Ahis} head.", "{A}'s heart beat fast."))
    s.p(("In the morning, {A} told {Ahis} friend {B}, {Bwas}. <A:There is a monster near my home!>", "The next day, {A} asked {Ahis} friend {B}, {Bwas}. <A:Did you hear it too?>"), ("<B:Let us look tonight. Two are braver than one.>", "<B:There are no monsters. We will find out what it is.>"), "So {B} stayed with {A} that night.", "They waited with a {colour2} lantern. Then it came again. \"{n}!\"")
    s.add("C", "animal", "small")
    s.p("They [went out|crept out] on [soft feet|tiptoe] and looked {spot1}.", s.maybe(.5, "{A} held on to {B}."), "<A:Who is there?>", "The light fell on {Cwas}.", ("<C:It is only me, {C}. I am sorry that I woke you.>", "<C:Please do not be angry. My name is {C}.>"), ("<C:I am building a home for the winter.>", "<C:I have lost my {thing}, and I look for it every night.>", "<C:I am making a {thing} for my mother.>"))
    s.p(("{A} began to laugh. <A:And I thought that you were a monster!>", "<A:You are so small, and you make so much noise!>"), "<B:We will help you, and then we can all sleep.>", "So the three of them worked until it was done.", s.maybe(.5, "Then they ate {food} and looked at the stars."),
        moral(s, "After that, {A} was not afraid of noises in the night.", "And when {A} heard the noise again, {Ahe} smiled and said, \"Good night, {C}.\""))


def quarrel(s):
    two(s)
    s.p(*opening(s), "{Ahis} best friend was {B}, {Bwas}.", "One {day}day, they found a {colour} {thing} {spot1}.", ("<A:I saw it first!>", "<A:It is mine!>"), ("<B:No, I saw it first!>", "<B:No, it is mine!>"))
    s.p("{A} pulled on one side, and {B} pulled on the other.", s.maybe(.5, "They pulled and shouted until they were red in the face."), "Then {A} went home without a word, and {B} went home, too.", "The {colour} {thing} lay [in the grass|on the ground], and nobody {look} it.".replace("{look}", "looked at"))
    s.p(("That evening, {A} was sad. It was no fun to play alone.", "At home, {A} tried to play {game}, but that does not work alone."), ("<A:What is a {thing} without a friend?>", "<A:I miss {B}.>"), s.maybe(.5, "{B} sat at home and thought the same."), s.maybe(.4, "{sky}"))
    s.p("In the morning, {A} took the {thing} and went to {B}. {B} was just coming out of the door.", ("<A:You can have it. I am sorry.>", "<A:I do not want to fight. Take the {thing}.>"), ("<B:No, you take it. I am sorry, too.>", "<B:I wanted to say the same to you!>"), "They looked at each other and laughed.",
        ("<A:Today it is yours, and tomorrow it is mine.>", "<B:Let us {thinguse} together.>"), "So they did" + s.rng.choice([".", ", and then they ate {food}.", ", and it was fun."]))
    s.p(moral(s, "They never [fought|quarreled] about the {thing} again.", "A friend is worth more than any {thing}."))


def ill(s):
    two(s)
    s.add("C")
    s.p(*opening(s), "{A}, {B} and {C} were friends. {B} was {Bwas}, and {C} was {Cwas}.", "They played {game} every day.")
    s.p("But one {day}morning, {B} did not come.", ("<A:Where is {B} today?>", "<C:Have you seen {B}?>"), "They went to {B}'s home. {B} was in bed, with a {colour} blanket up to {Bhis} chin.", ("<B:I am ill. I cannot play with you today.>", "<B:My head hurts, and I am so tired.>"))
    s.p(("<A:Then we will stay with you.>", "<C:What can we do for you?>"), "{A} cooked some {food}, and {C} told a funny story.", ("{B} laughed, and then {Bhe} fell asleep.", "{B} ate a little and smiled."), "[Day after day|Every day], they came back. {A} brought {food2}, and {C} brought a {colour2} {thing}.", s.maybe(.5, "It {thingdid}, and that made {B} glad."))
    s.p("After a week, {B} was well again.", ("<B:You were my best medicine.>", "<B:Thank you, {A}. Thank you, {C}.>"), s.maybe(.6, "<A:Now you can play {game} with us again!>"), "And off they ran, all three of them.", moral(s, "When {A} was ill the next winter, {B} and {C} came with {food}.", "{B} gave the {colour2} {thing} back, but {C} said, \"Keep it.\""))


def swap(s):
    s.add("A")
    s.add("B")
    s.add("C")
    s.p(*opening(s), "{A} had a {colour} {thing}, but what {Ahe} [really |]wanted was a {colour2} {thing2}.", "One {day}day, {A} went to the market to swap it.")
    s.p("On the way, {Ahe} met {B}, {Bwas}, who was crying.", "<A:What is the matter?>", ("<B:I am hungry, and I have nothing to eat.>", "<B:I lost my bread in the river.>"), "{A} had no food. But a baker came by with a cart.", "{A} gave the baker the {colour} {thing} and got {food} for it. <A:Here, {B}. Eat!>", ("<B:Thank you! You are so kind.>", "<B:But now you have nothing for yourself!>"))
    s.p("So {A} came to the market with empty [hands|pockets].", "There was the {colour2} {thing2}! It belonged to {C}, {Cwas}.", ("<C:What will you give me for it?>", "<C:Do you want it? What do you have?>"), "<A:Nothing. I gave it all away.>", "Then {B} came [running|] and told {C} everything.")
    s.p(("<C:A good heart is worth more than gold.>", "<C:Then you have paid already.>"), "And {C} gave {A} the {colour2} {thing2}.", ("<A:For me? Really?>", "{A} could not believe it."), "{B} and {A} went home together, and they took turns to {thinguse}.".replace("{thinguse}", "carry it"), moral(s, "{A} learned that kindness comes back.", "The {thing2} {thing2did}, and {A} never swapped it for anything."))


def bridge(s):
    two(s, skill="strong")
    s.p(*opening(s), "On the other side of the river lived {Ahis} friend {B}, {Bwas}.", "Every day, {A} crossed the [old|little] bridge, and they played {game}.")
    s.p("But one {day}night, the [water|river] rose and carried the bridge away.", "{A} stood on one side, and {B} stood on the other.", ("<A:How can I come to you now?>", "<B:I cannot come over!>"), s.maybe(.5, "They waved, but the water was too loud to talk."), s.maybe(.5, "{A} threw a {colour} ball across, and {B} threw it back. But it was not the same."))
    s.p("{A} went to {C}, {Cwas}, who was very strong.", ("<A:Can you help us to build a new bridge?>", "<A:Please, {C}, we need a bridge.>"), ("<C:I can carry the logs, but you must tell me where.>", "<C:If we all work, we can do it.>"), "{C} pulled a big log to the river, and {A} tied it with rope. On the other side, {B} [held|tied] the end.", "They worked for [two|three] days.", s.maybe(.5, "In the evenings they ate {food}."))
    s.p("At last, the bridge was done. {A} ran over it, right to {B}.", ("<B:It is stronger than the old one!>", "<B:I have missed you so much!>"), ("<A:We could not have done it without {C}.>", "<A:Now no water can keep us apart.>"), s.maybe(.5, "They hung a {colour} flag in the middle of the bridge."), moral(s, "And {C} walked over it every day to visit them both.", "{A} learned that many hands make light work."))


PLOTS = [lost_thing, lost_thing, picnic, fear, new_friend, race, storm, surprise, broken, present, journey, lost_animal,
         skill, seed, wish, boast, moon, music, treasure, helper, snow, lost_way, noise, quarrel, ill, swap, bridge]
