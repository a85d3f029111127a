"""Words that demo products are made of. All makers and places in front of a product are invented.

Names come in English, German and Greek, with the accents, ligatures and capitals that a slug has
to fold.
"""

import random
from dataclasses import dataclass

_PLACES = (
    "Ravenmoor", "Málaga", "Kraków", "Öland", "São Miguel", "Łódź", "Thornfield", "Besançon",
    "Ærø", "Tórshavn", "Valparaíso", "Südheim", "Ålesund", "Montañeta", "Çeşme", "Nazaré",
    "Windermere", "Köpenick", "Gruyères", "Brașov", "Hallstatt", "Cæsarea", "Zürich", "Marrakesh",
)  # fmt: skip
_GREEK_PLACES = (
    "Αίγινας", "Κρήτης", "Θεσσαλονίκης", "Σμύρνης", "Ύδρας", "Ρόδου", "Ιθάκης", "Μονεμβασιάς",
    "Ερμούπολης", "Δήλου", "Μυκόνου", "Σύρου",
)  # fmt: skip
_TITLES = {
    "strategy": (
        "Harbour of {}", "Die Gärten von {}", "The Architects of {}", "Händler von {}",
        "Rise of {}", "Könige von {}", "Cartographers of {}", "The Senate of {}",
    ),
    "family": (
        "Das Rätsel von {}", "The Cafés of {}", "Bridges of {}", "Die Zauberer von {}",
        "Night Market in {}", "A Feast in {}", "Der große Jahrmarkt von {}",
    ),
    "cooperative": (
        "Escape from {}", "The Lighthouse of {}", "Das Geheimnis von {}", "Storm over {}",
        "Last Train to {}", "Wölfe über {}",
    ),
}  # fmt: skip
_GREEK_TITLES = {
    "strategy": ("Οι κήποι της {}", "Έμποροι της {}", "Άρχοντες της {}"),
    "family": ("Το παζάρι της {}", "Παραμύθια της {}"),
    "cooperative": ("Το μυστήριο της {}", "Πειρατές της {}", "Ο φάρος της {}"),
}
_EDITIONS = (
    "", "", "", " – Deluxe Edition", " (2nd Edition)", ": Die Erweiterung", " – Επέκταση",
    " Duel", " Junior", ": Roll & Write", " – Café Edition", " XXL",
)  # fmt: skip

_GROCERS = (
    "Meltemi", "Αρκαδική Γη", "Hofgärtner", "Mühlenbach", "Kýma", "Casa Añeja", "Παραδοσιακό",
    "Old Mill", "Ελιά & Φως", "Grünwiese", "Bergkäserei", "Thyme & Salt", "Αιολικό", "L’Été",
)  # fmt: skip
_LABELS = ("", "", "", "Bio ", "Klassik ", "Fairtrade ", "Χωρίς Αλάτι ", "Family ", "Réserve ")
# What it is, its shelf, the price of the first size in euro, its sizes (first to last: dearer).
_GROCERIES = (
    ("Εξαιρετικό Παρθένο Ελαιόλαδο", "oil-and-vinegar", 7.9, ("500 ml", "1 l", "5 l")),
    ("Φέτα ΠΟΠ", "dairy", 3.9, ("200 g", "400 g", "1 kg")),
    ("Γιαούρτι Στραγγιστό 5 %", "dairy", 1.6, ("200 g", "1 kg")),
    ("Μέλι Θυμαρίσιο", "breakfast", 6.4, ("250 g", "450 g", "900 g")),
    ("Ρύζι Καρολίνα", "pasta-and-rice", 1.9, ("500 g", "1 kg")),
    ("Καφές Ελληνικός Παραδοσιακός", "coffee-and-tea", 3.2, ("100 g", "194 g", "490 g")),
    ("Φασόλια Γίγαντες", "pasta-and-rice", 2.7, ("500 g", "1 kg")),
    ("Χυμός Πορτοκάλι", "drinks", 1.5, ("330 ml", "1 l")),
    ("Müsli mit Nüssen", "breakfast", 3.4, ("375 g", "750 g")),
    ("Heumilchkäse würzig", "dairy", 4.1, ("150 g", "300 g")),
    ("Süße Brötchen", "bakery", 1.8, ("4 Stück", "6 Stück")),
    ("Grüner Tee", "coffee-and-tea", 2.6, ("20 Beutel", "50 Beutel")),
    ("Weißwein-Essig", "oil-and-vinegar", 1.7, ("500 ml", "1 l")),
    ("Spätzle", "pasta-and-rice", 1.4, ("400 g", "1 kg")),
    ("Rote Grütze", "desserts", 2.2, ("250 g", "500 g")),
    ("Apfelsaft naturtrüb", "drinks", 1.3, ("700 ml", "1 l", "6 × 1 l")),
    ("Crème Fraîche", "dairy", 1.1, ("150 g", "200 g")),
    ("Jalapeño Salsa", "sauces", 2.3, ("200 g", "450 g")),
    ("Oat Drink Barista", "drinks", 1.9, ("1 l", "6 × 1 l")),
    ("Smoked Salmon", "fish", 5.2, ("100 g", "200 g")),
    ("Rosé-Pepper Crackers", "bakery", 1.9, ("125 g", "250 g")),
    ("Dark Chocolate 70 %", "desserts", 1.8, ("100 g", "200 g")),
    ("Espresso Beans", "coffee-and-tea", 6.9, ("250 g", "1 kg")),
    ("Piñata Chilli Sauce", "sauces", 2.9, ("150 ml", "300 ml")),
)

_MAKERS = (
    "Nordlyd", "Voltéra", "Klangwerk", "Ηχώ", "Lumenière", "Kōyōdo", "Blåfjell", "Øresonic",
    "Pixelmühle", "Heliotrón", "Tønne", "Αστραπή", "Quartzline", "Fjærn",
)  # fmt: skip
# What it is, its shelf, the price in euro at which its models start, and at which they end.
_DEVICES = (
    ("Kabellose Kopfhörer", "audio", 39, 329), ("Bluetooth-Lautsprecher", "audio", 29, 249),
    ("Soundbar", "audio", 119, 599), ("Gaming-Tastatur", "computers", 49, 189),
    ("Ασύρματο Ποντίκι", "computers", 15, 99), ("Φορητός SSD 1 TB", "storage", 69, 159),
    ("Φορητός SSD 2 TB", "storage", 119, 249), ("microSD-Karte 256 GB", "storage", 19, 49),
    ("27″ Monitor", "computers", 149, 549), ("USB-C Ladegerät 65 W", "accessories", 25, 69),
    ("Powerbank 20.000 mAh", "accessories", 24, 79), ("E-Reader", "tablets", 99, 289),
    ("Tablet 11″", "tablets", 199, 799), ("Κάμερα Ασφαλείας", "smart-home", 35, 189),
    ("Robot Vacuum", "smart-home", 179, 899), ("Smart Bulb E27", "smart-home", 9, 39),
    ("Webcam 1080p", "computers", 35, 129), ("Action Camera", "cameras", 129, 449),
    ("Ηχείο Μπάνιου", "audio", 19, 69), ("Fitness-Armband", "wearables", 29, 149),
)  # fmt: skip
_SERIES = ("One", "Mini", "Pro", "Air", "Max", "Néo", "Plus", "Go")


@dataclass(frozen=True)
class Product:
    """One product as all sellers know it. `price` is its usual one, in euro."""

    number: int
    name: str
    tags: tuple[str, ...]
    price: float
    description: str

    @property
    def department(self) -> str:
        return self.tags[0]

    @property
    def image(self) -> str:
        return f"https://example.org/images/{self.department}/{self.number:05}.jpg"


def make(number: int, chance: random.Random) -> Product:
    """Product `number` by `chance`. Departments take turns.

    A name may come up again: each department has some thousands.
    """
    return (_board_game, _grocery, _device)[number % 3](number, chance)


def _board_game(number: int, chance: random.Random) -> Product:
    shelf = chance.choice(sorted(_TITLES))
    greek = chance.random() < 0.25
    titles, places = (_GREEK_TITLES, _GREEK_PLACES) if greek else (_TITLES, _PLACES)
    name = chance.choice(titles[shelf]).format(chance.choice(places)) + chance.choice(_EDITIONS)
    players = f"{chance.randint(1, 2)} to {chance.randint(4, 6)} players"
    minutes = chance.choice((20, 30, 45, 60, 90, 120))
    return Product(
        number,
        name,
        ("board-games", shelf),
        round(chance.triangular(12, 95, 34), 2),
        f"A {shelf} game for {players}; {minutes} minutes.",
    )


def _grocery(number: int, chance: random.Random) -> Product:
    what, shelf, price, sizes = chance.choice(_GROCERIES)
    size = chance.randrange(len(sizes))
    return Product(
        number,
        f"{chance.choice(_GROCERS)} {chance.choice(_LABELS)}{what} {sizes[size]}",
        ("groceries", shelf),
        round(price * 1.85**size * chance.uniform(0.8, 1.5), 2),
        f"{what}, {sizes[size]}. Store in a cool, dry place.",
    )


def _device(number: int, chance: random.Random) -> Product:
    what, shelf, low, high = chance.choice(_DEVICES)
    model = f"{chance.choice(_SERIES)} {chance.randint(1, 9)}{chance.choice(('', '00', '50', 'S'))}"
    return Product(
        number,
        f"{chance.choice(_MAKERS)} {model} {what}",
        ("electronics", shelf),
        round(chance.triangular(low, high, low * 1.6), 2),
        f"{what}. Two years of warranty.",
    )
