"""Prompts that a fresh installation is tried out with: short, in English, over FB-Bench's eight task types.

They are written for a model of 135M parameters: each can be answered in a few sentences.
"""

from __future__ import annotations

Messages = list[dict[str, str]]


def _dialogue(*turns: str) -> Messages:
    """Turns in alternation, the user's first and last."""
    return [{"role": ("user", "assistant")[number % 2], "content": turn} for number, turn in enumerate(turns)]


_SINGLE_TURNS = {
    "Mathematics": [
        "What is 15 % of 80? Show the one step that you need.",
        "A train goes 120 km in 2 hours. How fast is it on average?",
        "I have 3 red and 5 blue marbles in a bag. What is the chance of drawing a red one?",
        "Solve for x: 2x + 6 = 20.",
        "What is the area of a rectangle that is 7 cm long and 4 cm wide?",
        "How many minutes are there in three and a half hours?",
        "A jacket costs 60 euros and is reduced by a quarter. What does it cost now?",
        "What is the sum of the numbers from 1 to 10?",
        "Explain in two sentences what a prime number is and give three examples.",
        "If a dozen eggs cost 3 dollars, what does one egg cost?",
        "What is the perimeter of a square whose area is 49 square metres?",
    ],
    "Reasoning": [
        "Anna is taller than Ben, and Ben is taller than Clara. Who is the shortest?",
        "All cats in our street are black. Tom's cat is white. Does Tom's cat live in our street? Say why.",
        "It takes one person 6 hours to paint a fence. How long do two people need at the same speed?",
        "What comes next: Monday, Wednesday, Friday, ...? Explain the rule.",
        "You have a 3-litre and a 5-litre jug. How can you measure exactly 2 litres?",
        "If it rains, the match is cancelled. The match was not cancelled. Did it rain?",
        "Which one does not belong: apple, banana, carrot, cherry? Give your reason.",
        "Sam put the milk in the oven and the cake in the fridge. What went wrong?",
        "A shop closes at 6 and I need 40 minutes to get there. When must I leave at the latest?",
        "Why can you see lightning before you hear thunder?",
        "Two fathers and two sons share three apples, and each gets one. How is that possible?",
    ],
    "Coding": [
        "Write a Python function that returns the larger of two numbers.",
        "What does this line do in Python? `squares = [n * n for n in range(5)]`",
        "My Python script says `IndentationError`. What does that mean and how do I fix it?",
        "Write a Python loop that prints the even numbers from 2 to 20.",
        "Explain the difference between a list and a tuple in Python in two sentences.",
        "How do I reverse a string in Python?",
        "What is wrong with this code? `if x = 3: print(x)`",
        "Write an SQL query that counts the rows of a table named orders.",
        "Explain what a function parameter is to somebody who has never programmed.",
        "How can I read a text file line by line in Python?",
        "Write a short Python function that counts the vowels in a word.",
    ],
    "Text Extraction": [
        "Which city is named in this sentence? “We met in Lisbon on a rainy Tuesday and had coffee.”",
        "List the ingredients: “Mix two eggs with flour, add a glass of milk and a pinch of salt, then fry in butter.”",
        "Give this paragraph a title: “Bees carry pollen from flower to flower. Without them many fruits would not grow.”",
        "What is the date of the meeting? “Please note that the meeting has moved from 3 May to 10 May at noon.”",
        "Sum up in one sentence: “The library will be closed next week. Books can be returned in the box at the door. "
        "The new opening hours will be posted online.”",
        "Who called whom? “Maria was cooking when Peter rang to ask for her recipe.”",
        "Extract the phone number: “Call our office (555-0142) on weekdays; on Sundays nobody is there.”",
        "List the three animals: “The old farm had a goat, two geese and a very loud donkey.”",
        "What does the writer complain about? “The room was clean and the staff were kind, but the street kept me awake.”",
        "Summarise in ten words or fewer: “Walking for half an hour a day lowers blood pressure and improves sleep.”",
        "Which product is cheaper? “The blue lamp costs 24 euros; the green one is 31 euros but has a dimmer.”",
    ],
    "Text Error Correction": [
        "Correct this sentence: “He go to school every days.”",
        "Find the spelling mistake: “The wether was lovely yesterday.”",
        "Is this sentence correct? “Me and my brother has two dog.” If not, correct it.",
        "Put the commas where they belong: “After lunch we walked home tired but happy.”",
        "Correct the word order: “Yesterday went I to the market.”",
        "Which is right, “its raining” or “it's raining”? Say why.",
        "Correct the spelling: “I recieved your mesage and will anser tomorow.”",
        "Make this sentence grammatical: “She don't like neither tea nor coffee.”",
        "Find what is wrong and fix it: “Their are three books on the table.”",
        "Correct the tense: “Last year we travel to Norway and see the fjords.”",
        "Correct this notice: “Dogs is not aloud in the parc.”",
    ],
    "Text Creation": [
        "Write a polite reply to a customer whose parcel is two days late.",
        "Write a two-sentence invitation to a birthday party on Saturday.",
        "Write a short thank-you note to a neighbour who watered my plants.",
        "Write a four-line poem about the first snow.",
        "Write an e-mail of three sentences asking my boss for a day off.",
        "Describe a quiet beach in the early morning in three sentences.",
        "Write a friendly reminder to return a borrowed book.",
        "Write the first three sentences of a story about a lost key.",
        "Rewrite this more politely: “Send me the report today.”",
        "Write a short apology for arriving late to a meeting.",
        "Write a product description of two sentences for a wooden pencil box.",
    ],
    "Knowledge Q&A": [
        "What is the capital of Australia?",
        "Why is the sky blue? Answer in two sentences.",
        "What does a thermometer measure?",
        "How can I fall asleep more easily? Give three tips.",
        "What is the difference between weather and climate?",
        "Which planet is closest to the sun?",
        "Why do we have leap years?",
        "What is recycling and why does it help?",
        "How often should I water a cactus?",
        "What is a database? Explain it with an everyday comparison.",
        "Who wrote “Romeo and Juliet”?",
    ],
    "Text Translation": [
        "Translate into French: “Good morning, how are you?”",
        "Translate into Spanish: “Where is the train station, please?”",
        "Translate into German: “Thank you for your help.”",
        "What does the French sentence “Je voudrais un café” mean in English?",
        "Translate into Italian: “The book is on the table.”",
        "What does “Guten Abend” mean, and when do people say it?",
        "Translate into Spanish: “I would like a table for two.”",
        "Give the English meaning of the Spanish proverb “Más vale tarde que nunca”.",
        "Translate into French: “My sister lives in a small town.”",
        "How do you say “please” and “sorry” in German?",
        "Translate into English: “La biblioteca está cerrada los domingos.”",
    ],
}

_DIALOGUES: list[tuple[str, Messages]] = [
    (
        "Mathematics",
        _dialogue("What is 7 + 5?", "7 + 5 is 12.", "My teacher says it is 13. Are you sure?"),
    ),
    (
        "Reasoning",
        _dialogue(
            "Is a tomato a fruit or a vegetable?",
            "It is a fruit, because it grows from a flower and holds seeds.",
            "Then why do people call it a vegetable?",
        ),
    ),
    (
        "Coding",
        _dialogue(
            "How do I add an item to a Python list?",
            "Use `items.append(value)`.",
            "And how do I put it at the beginning instead?",
        ),
    ),
    (
        "Text Extraction",
        _dialogue(
            "Name the countries in this sentence: “From Spain we drove through France to Belgium.”",
            "Spain and France.",
            "You have missed one. Which?",
        ),
    ),
    (
        "Text Error Correction",
        _dialogue(
            "Correct this: “I has a cat.”",
            "I have a cat.",
            "Thank you. Can you explain the rule in one sentence?",
        ),
    ),
    (
        "Text Creation",
        _dialogue(
            "Write a one-line greeting for a shop's door.",
            "Welcome, come in and look around!",
            "Make it shorter and warmer, please.",
        ),
    ),
    (
        "Knowledge Q&A",
        _dialogue(
            "How long does it take the moon to go around the earth?",
            "About 27 days.",
            "Explain that in one sentence for a child, please.",
        ),
    ),
    (
        "Text Translation",
        _dialogue(
            "Translate “good night” into French.",
            "Bonne nuit.",
            "Is that also what I say when I arrive somewhere in the evening?",
        ),
    ),
]

DEMO_PROMPTS: list[tuple[str, Messages]] = [
    *(
        (task, _dialogue(text))
        for texts in zip(*_SINGLE_TURNS.values(), strict=True)
        for task, text in zip(_SINGLE_TURNS, texts, strict=True)
    ),
    *_DIALOGUES,
]
"""(task type, messages); the single-turn ones take the tasks in turn, so that the first few show them all."""
