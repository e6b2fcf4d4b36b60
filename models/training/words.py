"""The word lists of the story grammar: who lives there, where, with what, and in which weather.

`grammar.py` draws from these lists; nothing else reads them.
"""
GIRLS = """Lily Mia Anna Rosa Emma Luna Ella Nora Clara Ivy Ruby Hazel Daisy Poppy Molly Lucy Sophie Grace Alice Bella
Zoe Nina Maya Sara Tess Wren Willow Fern Dora June Elsie Millie Penny Greta Lena Flora Holly Iris Jade Kira Lola Mabel
Olive Pearl Sally Tilly Una Vera Winnie Amara Beth Cora Edith Freya Heidi Ada Juno Rosie Marta Emily Sarah Stella""".split()
BOYS = """Tom Ben Max Jack Sam Leo Finn Noah Oscar Hugo Theo Felix Toby Charlie Oliver Milo Jasper Henry George Peter
Arthur Alfie Eli Luke Otto Rufus Simon Walter Archie Barney Caleb Daniel Edgar Frank Gus Harry Ivan Joe Kit Louis Miles
Ned Owen Percy Ralph Silas Ted Victor Will Adam Bruno Colin Dylan Emil Timmy Billy Jonas Niko Robin Rowan Alex""".split()
PET_SHE = """Pip Bramble Nutmeg Dot Clover Honey Mimi Tansy Pebble Blossom Misty Snowy Ginger Biscuit Sunny Twinkle
Sparkle Maple Peach Plum Coco Lulu Birdie Moss Hattie Velvet Dewdrop Acorn Rosebud Cricket""".split()
PET_HE = """Rusty Bruno Patch Whiskers Barnaby Bertie Scout Thistle Chester Hopper Buster Fluff Sprout Tumble Pickle
Rolo Sammy Dash Copper Hobbs Jumper Mister Oakley Puddle Quill Rocky Scamper Tuck Waddle Ziggy""".split()

# kind: (skills, home, what it likes to eat)
ANIMALS = {
    "fox": ("run dig", "den", "berries"), "rabbit": ("dig run", "burrow", "carrots"),
    "bear": ("strong climb", "cave", "honey"), "mouse": ("small", "hole in the wall", "cheese"),
    "owl": ("fly see", "hollow tree", "seed cakes"), "hedgehog": ("small", "pile of leaves", "apples"),
    "squirrel": ("climb run", "oak tree", "nuts"), "duck": ("swim fly", "nest by the pond", "bread"),
    "turtle": ("swim", "mossy log", "lettuce"), "frog": ("swim jump", "lily pad", "pond cakes"),
    "cat": ("climb see", "basket by the fire", "fish"), "dog": ("dig run", "little wooden house", "biscuits"),
    "pony": ("strong run", "stable", "apples"), "badger": ("dig strong", "burrow", "mushrooms"),
    "otter": ("swim", "river bank", "fish"), "beaver": ("swim strong", "house of sticks", "bark bread"),
    "mole": ("dig small", "tunnel", "roots"), "sparrow": ("fly small", "nest", "seeds"),
    "robin": ("fly small", "nest", "crumbs"), "goose": ("fly swim", "barn", "corn"),
    "monkey": ("climb jump", "tall tree", "bananas"), "elephant": ("strong", "shady grove", "melons"),
    "crow": ("fly see", "old pine tree", "corn"), "goat": ("climb strong", "hill", "clover"),
    "dragon": ("fly strong", "warm cave", "toasted bread"), "lamb": ("run jump", "meadow", "clover"),
    "deer": ("run jump", "quiet wood", "grass"), "donkey": ("strong", "barn", "hay"),
    "kitten": ("climb small", "basket", "milk"), "ant": ("small", "tiny hill", "sugar"),
}
ADULTS = [  # (name, pronoun, what the person is)
    ("Grandma {n}", "she", "grandmother", "girl"), ("Grandpa {n}", "he", "grandfather", "boy"),
    ("Mrs. {s}", "she", "baker", ""), ("Mr. {s}", "he", "farmer", ""), ("Mr. {s}", "he", "teacher", ""),
    ("Mrs. {s}", "she", "teacher", ""), ("Mrs. {s}", "she", "painter", ""), ("Mr. {s}", "he", "fisherman", ""),
    ("Mr. {s}", "he", "clockmaker", ""), ("Mrs. {s}", "she", "gardener", ""), ("Mr. {s}", "he", "carpenter", ""),
    ("Aunt {n}", "she", "aunt", "girl"), ("Uncle {n}", "he", "uncle", "boy"), ("Captain {s}", "he", "sailor", ""),
    ("Mrs. {s}", "she", "shopkeeper", ""), ("Mr. {s}", "he", "gardener", ""), ("Mrs. {s}", "she", "farmer", ""),
]
SURNAMES = """Bell Gray Brown Hill Green Wood Stone Miller Baker Field Finch Marsh Reed Lark Hart Moon Winter Bird Fisher
Potter Cook Page Berry Rose Snow Banks Brook Carter Dale Fox""".split()

# name: (the words for it, places close by where one could look)
PLACES = {
    "forest": ("in the forest|at the edge of the forest|deep in the green forest|in a quiet forest",
               "under the ferns|behind the old oak|between the roots|near the fallen log|by the mushrooms"),
    "village": ("in a small village|in a little village by a hill|in a quiet village|in a village of red roofs",
                "behind the well|in the market|under the bench|near the mill|by the church wall"),
    "farm": ("on a farm|on a small farm|on a farm near a stream|on a big green farm",
             "in the barn|behind the haystack|under the wagon|near the hen house|by the gate"),
    "sea": ("by the sea|in a white house by the sea|near a sandy beach|in a fishing town by the sea",
            "under the boats|among the rocks|behind the sand hill|in the seaweed|near the pier"),
    "garden": ("in a house with a big garden|beside a garden full of flowers|in a sunny garden|near a wild garden",
               "under the roses|behind the shed|in the tall grass|near the pond|by the stone wall"),
    "mountain": ("on a mountain|at the foot of a tall mountain|in a hut on a mountain|high up in the mountains",
                 "behind the big rock|under the pine trees|in the small cave|along the stony path|near the spring"),
    "river": ("by the river|near a wide river|in a cottage by the river|beside a slow blue river",
              "under the bridge|among the reeds|behind the willow|on the muddy bank|near the stepping stones"),
    "town": ("in a busy town|in a town with a tall clock tower|in a big town|in a cheerful little town",
             "in the square|under the stairs|behind the fountain|near the bakery|by the school gate"),
    "meadow": ("in a meadow|near a meadow full of daisies|at the edge of a wide meadow|in a sunny meadow",
               "in the tall grass|under the hedge|behind the hill|near the brook|by the apple tree"),
    "island": ("on an island|on a tiny island|on an island in a warm sea|on a green island",
               "under the palm trees|in the shallow pool|behind the dunes|near the old boat|among the shells"),
}
# name: (what one does with it, to see / hear about it)
THINGS = {
    "kite": ("fly it in the wind", "danced in the sky"), "ball": ("play with it", "bounced high"),
    "hat": ("wear it every day", "looked very fine"), "lantern": ("carry it at night", "shone like a small moon"),
    "drum": ("play it", "went boom, boom, boom"), "flute": ("play a song on it", "sang like a bird"),
    "book": ("read it before bed", "smelled of old paper"), "scarf": ("wear it on cold days", "was soft and warm"),
    "blanket": ("sleep under it", "was soft as a cloud"), "basket": ("carry things in it", "was strong and light"),
    "ring": ("look at it in the sun", "glittered in the light"), "bell": ("ring it", "rang bright and clear"),
    "shell": ("listen to it", "whispered like the sea"), "cup": ("drink from it", "never had a crack"),
    "doll": ("play with it", "had a kind little face"), "wagon": ("pull it along", "rolled down every path"),
    "umbrella": ("open it in the rain", "kept out every drop"), "music box": ("listen to it", "played a sweet tune"),
    "map": ("look at it", "showed every hill and stream"), "coin": ("keep it safe", "shone like the sun"),
    "feather": ("keep it close", "was light as air"), "boat": ("sail it on the water", "floated very well"),
    "key": ("wear it on a string", "shone when it was rubbed"), "spoon": ("stir soup with it", "was smooth and round"),
    "toy train": ("play with it", "ran round and round"), "violin": ("play it", "made a lovely sound"),
    "whistle": ("blow it", "could be heard far away"), "bucket": ("fill it with water", "never leaked"),
    "puppet": ("make it dance", "could nod and bow"), "necklace": ("wear it", "sparkled in the sun"),
    "clock": ("wind it", "went tick, tock"), "paintbrush": ("paint with it", "made the finest lines"),
}
COLOURS = """red blue green yellow golden silver white purple orange pink brown bright-red sky-blue dark-blue
striped spotted wooden tiny shiny old round little""".split()
FOODS = """apple pie|honey cake|fresh bread|berry tart|carrot soup|cheese sandwiches|pancakes|oat biscuits|plum jam
pumpkin soup|cherry pie|nut bread|ginger cookies|cream buns|corn cakes|strawberries|roasted chestnuts|lemon cake
blueberry muffins|potato soup""".replace("\n", "|").split("|")
TRAITS = """brave kind shy curious clever cheerful gentle quiet lively careful merry dreamy patient
helpful playful sleepy friendly hopeful thoughtful""".split()
SIZES = ["little", "small", "young", "tiny", "little", "little"]
FLOWERS = "rose tulip daisy sunflower bluebell poppy lily violet snowdrop marigold".split()
GAMES = "hide and seek|tag|catch|marbles|jump rope|leapfrog|hopscotch|follow the leader".split("|")
WEATHER = {
    "sunny": ("The sun was [shining|warm and bright|high in the sky].|[It was|What] a [bright|warm|lovely|golden] day.|"
              "The sky was [blue|clear] and the birds were singing.|Not a cloud was in the sky.",
              "[bright|sunny|warm|fine] "),
    "windy": ("The wind was [strong|playful|blowing hard].|The wind [shook the trees|sang in the trees|chased the leaves].|"
              "A [cool|strong|merry] wind was blowing.", "[windy|breezy] "),
    "rainy": ("Rain [tapped on the roofs|fell softly|was falling].|The sky was gray and [wet|full of rain].|"
              "Small drops of rain [fell|danced in the puddles].", "[rainy|wet|gray] "),
    "snowy": ("Snow [covered everything|lay on the ground|was falling softly].|Everything was white with snow.|"
              "The air was cold and [clear|still].", "[snowy|cold|frosty] "),
    "misty": ("A [soft|thin|white] mist lay [over the ground|all around].|The morning was [misty|gray and still].",
              "[misty|quiet|gray|still] "),
    "autumn": ("The leaves were [red and gold|falling|turning yellow].|The air smelled of [apples|leaves and smoke].",
               "[cool|golden|crisp] "),
}
