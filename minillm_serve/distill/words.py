"""Words that fill the templates, by kind; lists whose entries hold commas are separated by semicolons."""

from __future__ import annotations

WORDS: dict[str, tuple[str, ...]] = {
    name: tuple(part.strip() for part in words.split(";" if ";" in words else ","))
    for name, words in {
        "animal": "cat, dog, horse, whale, owl, bear, fox, rabbit, elephant, lion, penguin, turtle, frog, snake,"
        " wolf, dolphin, eagle, duck, mouse, bee, ant, spider, shark, giraffe, monkey, camel, goat, sheep, crow,"
        " butterfly, hen, seal, hedgehog, squirrel, parrot, swan, deer, zebra, tiger, crab, snail, hamster, donkey,"
        " kangaroo, koala, otter, beaver, bat, pigeon, lizard, salmon, octopus, jellyfish, panda, raven",
        "object": "lamp, key, map, clock, book, mirror, boat, bicycle, camera, hammer, kite, ladder, piano, guitar,"
        " telescope, umbrella, bottle, candle, compass, drum, engine, hat, knife, letter, radio, ring, rope, wheel,"
        " computer, printer, telephone, train, bridge, window, battery, pencil, basket, coin, blanket, bell, spoon,"
        " pillow, bucket, mug, scarf, backpack, bench, brush, calendar, chair, table, comb, cup, door, drawer,"
        " envelope, fan, flute, fork, glove, keyboard, kettle, lantern, magnet, microscope, needle, notebook, oven,"
        " phone, plate, pump, ruler, saw, shelf, shoe, stamp, suitcase, tent, thermometer, torch, towel, toy,"
        " trumpet, violin, vase, wallet, watch, whistle",
        "place": "forest, city, village, desert, harbour, library, market, mountain, museum, island, kitchen, school,"
        " garden, hospital, station, castle, farm, valley, beach, cave, factory, theatre, park, airport, office,"
        " bakery, bank, church, cinema, circus, classroom, dentist's office, fire station, gym, hotel, jungle,"
        " lighthouse, marsh, meadow, mine, palace, playground, port, post office, restaurant, shop, square, stadium,"
        " swamp, swimming pool, tower, town hall, tunnel, vineyard, workshop, zoo",
        "topic": "photosynthesis, electricity, the water cycle, volcanoes, evolution, the Moon, the Sun, magnets,"
        " earthquakes, the internet, recycling, vaccines, the human heart, the brain, sleep, democracy, inflation,"
        " money, music, painting, football, chess, swimming, the Roman Empire, the Renaissance, engines, rainbows,"
        " sound, light, atoms, bacteria, dinosaurs, glaciers, tides, bread, coffee, tea, chocolate, cotton, glass,"
        " paper, solar energy, wind energy, climate, rivers, oceans, planets, comets, black holes, robots, databases,"
        " operating systems, machine learning, encryption, algorithms, fractions, prime numbers, triangles, ratios,"
        " gravity, oxygen, carbon, iron, salt, sugar, rice, milk, honey, water, fire, snow, rain, clouds, lightning,"
        " the seasons, the wind, the stars, the planets, the Milky Way, space travel, satellites, telescopes,"
        " aeroplanes, trains, bicycles, cars, ships, maps, clocks, calendars, writing, printing, books, libraries,"
        " schools, hospitals, taxes, banks, trade, cities, farming, forests, deserts, mountains, islands, whales,"
        " bees, ants, birds, fish, trees, flowers, seeds, blood, bones, muscles, skin, memory, dreams, fear,"
        " friendship, laughter, teamwork, dance, theatre, film, photography, poetry, opera, cooking, yoga, tennis,"
        " the Olympic Games, ancient Egypt, ancient Greece, the Middle Ages, the Vikings, the steam engine,"
        " computers, programming, email, passwords, video games, batteries, plastic, steel, wood, wool, silk, cement,"
        " lasers, X-rays, DNA, cells, viruses, antibiotics, nutrition, exercise, allergies, fever",
        "country": "Germany, Brazil, Mexico, India, China, Portugal, Greece, Sweden, Chile, Argentina, Poland,"
        " Turkey, Vietnam, Thailand, Morocco, Ghana, Finland, Ireland, Cuba, Iceland, South Korea, Indonesia, the"
        " Netherlands, Austria, Belgium, Denmark, Hungary, Romania, Bulgaria, Croatia, Switzerland, Scotland,"
        " Ukraine, Israel, Iran, Iraq, Saudi Arabia, Pakistan, Nepal, Mongolia, Malaysia, the Philippines, New"
        " Zealand, Colombia, Ecuador, Bolivia, Uruguay, Paraguay, Venezuela, Panama, Costa Rica, Jamaica, Tunisia,"
        " Algeria, Ethiopia, Nigeria, Senegal, South Africa, Tanzania, Madagascar",
        "person": "Ana, Ben, Clara, David, Elena, Farid, Grace, Hugo, Irene, Jonas, Kira, Leo, Marta, Nadia, Omar,"
        " Paula, Quentin, Rosa, Samuel, Tara, Uma, Victor, Wendy, Yusuf, Zoe, Adam, Bella, Carlos, Daisy, Emil,"
        " Fiona, George, Hana, Ivan, Julia, Karim, Lucy, Mia, Noah, Olga, Peter, Rita, Simon, Tom, Vera, Walter,"
        " Anna, Jack, Emma, Lily, Max, Sofia, Lucas, Alice, Sam, Nina, Oscar, Ruth, Paul, Ines",
        "figure": "Isaac Newton, Marie Curie, Albert Einstein, Leonardo da Vinci, Cleopatra, Julius Caesar, Mozart,"
        " Galileo, Charles Darwin, Ada Lovelace, Nelson Mandela, Jane Austen, Aristotle, Napoleon, Gandhi, Frida"
        " Kahlo, Pablo Picasso, Vincent van Gogh, Michelangelo, Beethoven, Bach, Charles Dickens, Mark Twain, Homer,"
        " Plato, Socrates, Alexander the Great, Joan of Arc, Queen Victoria, Abraham Lincoln, George Washington,"
        " Martin Luther King, Rosa Parks, Simón Bolívar, Christopher Columbus, Marco Polo, Nikola Tesla, Thomas"
        " Edison, Alexander Graham Bell, Louis Pasteur, Alan Turing, Grace Hopper, Neil Armstrong, Amelia Earhart,"
        " Florence Nightingale, Confucius, Genghis Khan, Archimedes, Copernicus, Gutenberg",
        "adjective": "brave, quiet, old, curious, lazy, clever, tiny, lonely, angry, gentle, strange, bright, slow,"
        " kind, nervous, proud, broken, golden, cheerful, tired, cold, dark, loud, strong, clean, simple, early,"
        " happy, sad, small, big, short, long, young, rich, poor, hungry, thirsty, friendly, polite, shy, funny,"
        " serious, honest, careful, noisy, heavy, soft, hard, warm, hot, wet, dry, sharp, round, empty, full, fresh,"
        " dusty, hidden, secret, magic, famous, forgotten, beautiful, ugly, difficult, easy, cheap, expensive,"
        " modern, ancient, red, blue, green, wooden",
        "group": "vegetables, birds, insects, musical instruments, sports, colours, countries in Europe, rivers,"
        " programming languages, tools, pieces of furniture, trees, flowers, mammals, reptiles, jobs, school"
        " subjects, hobbies, desserts, drinks, spices, kinds of weather, means of transport, parts of the body, board"
        " games, fruits, animals, fish, planets, oceans, cities in Asia, cities in Europe, countries in Africa,"
        " countries in South America, languages, shapes, metals, gases, toys, clothes, shoes, kitchen tools, garden"
        " tools, machines, vehicles, ships, computer parts, web browsers, holidays, famous painters, famous"
        " scientists, famous writers, kinds of music, dances, films, fairy tales, kinds of bread, kinds of cheese,"
        " soups, breakfast foods, green vegetables, wild animals, farm animals, pets, animals with four legs, animals"
        " that can fly, animals that live in rivers, things made of wood, things made of glass, things that are"
        " round, feelings, good manners, sources of energy, senses, continents, mountains, deserts",
        "activity": "learning a language, cooking at home, saving money, running a marathon, studying for an exam,"
        " writing an essay, growing tomatoes, working from home, moving to a new city, taking photographs, public"
        " speaking, keeping a diary, drawing, playing chess, training a dog, cleaning a room, travelling by train,"
        " planning a party, reading more, staying healthy, using less water, making friends, managing time, learning"
        " to swim, learning the guitar, writing a story, writing a letter, riding a bicycle, driving a car, camping,"
        " hiking, fishing, gardening, knitting, painting a wall, baking bread, making coffee, doing homework,"
        " learning mathematics, learning to code, giving a presentation, looking for a job, starting a business,"
        " sleeping well, waking up early, drinking more water, eating vegetables, doing sport every day, walking to"
        " work, using public transport, reading books, reading the news, listening to music, sharing a flat, saving"
        " energy, recycling at home, meditating, playing football, playing the piano, visiting a museum, caring for a"
        " baby, helping a neighbour, buying a used car, working in a team, asking for help, saying no",
        "dish": "pumpkin soup, a fruit salad, banana bread, lentil stew, scrambled eggs, tomato sauce, a potato"
        " gratin, chocolate cookies, lemonade, vegetable curry, a chicken sandwich, rice pudding, bean tacos, apple"
        " pie, tea, pancakes with honey, a green salad, tomato soup, chicken soup, mushroom risotto, spaghetti,"
        " lasagne, pizza, an omelette with herbs, mashed potatoes, fish with lemon, roast chicken, a cheese toast,"
        " hummus, yoghurt with nuts, a carrot cake, muffins, waffles, hot chocolate, iced tea, an orange juice, a"
        " peanut sandwich, fried noodles, stuffed peppers, a bean salad, garlic bread, corn bread, oat porridge",
        "receiver": "a colleague, your boss, a neighbour, a customer, a friend, your landlord, a professor, the team,"
        " your teacher, your grandmother, a doctor, a nurse, your coach, a client, a new student, your aunt, the"
        " librarian, a shop, the manager, your brother",
        "matter": "a broken heater, the new schedule, a birthday party, a delayed delivery, next week's trip, a lost"
        " key, a job opening, the monthly report, a change of address, a cancelled class, noise at night, an invoice,"
        " a missing parcel, a hotel booking, a school trip, a broken window, a lost bag, the next meeting, a day off,"
        " a refund, a wrong bill, a new address, a doctor's appointment, the train times, a birthday cake, the"
        " garden, a lost cat, a piano lesson",
        "language": "Spanish, French, German, Italian, Portuguese, Latin, Dutch, Swedish",
        "code": "reverses a string, counts the vowels of a text, returns the largest number of a list, checks whether"
        " a word is a palindrome, computes the factorial of a number, converts Celsius to Fahrenheit, removes"
        " duplicates from a list, sums the digits of a number, merges two dictionaries, sorts a list of names, reads"
        " a file line by line, counts the words of a text, tells whether a number is prime, prints the first n"
        " squares, finds the smallest number of a list, computes the average of a list, converts miles to kilometres,"
        " counts a letter in a text, writes a text to a file, prints a multiplication table, makes a list of squares,"
        " capitalises each word, splits a sentence into words, joins a list of words with commas, picks a random item"
        " of a list, swaps two variables, computes the power of a number, finds the longest word of a list, removes"
        " the spaces of a text, prints the numbers from 1 to 10, greets a person by name, flattens a list of lists,"
        " computes the Fibonacci numbers, checks a password's length",
        "record": "name, age and job of a person; title, author and year of a book; name, price and colour of a"
        " product; city, country and population of a town; name, species and age of a pet; date, place and topic of a"
        " meeting; brand, model and year of a car; name, ingredients and minutes of a dish; name, colour and price of"
        " a fruit; name, capital and continent of a country; title, artist and year of a song; name, team and age of"
        " a player; title, director and year of a film; name, size and colour of a shirt; city, temperature and"
        " weather of a day; sender, subject and text of an email",
        "deed": "opened the door, painted the wall, carried the box, missed the bus, planted a tree, lost the map,"
        " fixed the engine, wrote a long letter, told a joke, bought three apples, waited for an hour, sang a song,"
        " found an old coin, closed the window, baked a cake, walked home in the rain, forgot the password, climbed"
        " the hill, fell asleep on the train, drew a picture, learned a new word, watered the flowers, cut the grass,"
        " fed the birds, broke a cup, cleaned the kitchen, helped a stranger, won a race, bought a ticket, followed"
        " the river, heard a strange noise, saw a light, swam across the lake, read the whole book, called an old"
        " friend, cooked dinner, made a wish, ran home, turned on the lamp, hid the key, built a small boat, looked"
        " at the stars, packed a suitcase, caught a fish, asked a question",
        "fact": "It needs little water and much light, It was built by hand over many years, It is cheap and easy to"
        " repair, Many people visit it every summer, It saves time but costs more, Children learn about it at school,"
        " It helps cities to stay clean, It has changed very little since then, Experts do not agree about its"
        " origin, It is made of wood and iron, It works best when it is used every day, It can be dangerous without"
        " care, It is one of the oldest of its kind, It was closed for a long time and opened again last year, People"
        " come from far away to see it, It makes less noise than the old one, It was a gift from a friend, It uses"
        " the light of the sun, It is open from morning to evening, It was first used in the north, It grows faster"
        " in warm weather, It must be kept in a dry place, It was drawn by a young student, Nobody knows how old it"
        " is, It is smaller than most people think, It can be heard from the other side of the river, It brings"
        " families together, Animals need it as much as people do, It costs nothing and helps everyone",
        "invention": "telephone, light bulb, radio, television, printing press, steam engine, aeroplane, bicycle,"
        " camera, computer, telescope, microscope, compass, refrigerator, sewing machine, washing machine, wheel,"
        " clock, microwave, vaccine, typewriter, World Wide Web, battery, pencil, zip, car",
        "work": "the play Hamlet, the play Macbeth, the novel Don Quixote, the Odyssey, the novel Pride and"
        " Prejudice, the novel Oliver Twist, the novel Frankenstein, the novel Moby Dick, The Little Prince, Alice in"
        " Wonderland, Peter Pan, Pinocchio, The Jungle Book, Treasure Island, the novel Dracula, the novel 1984, War"
        " and Peace, Robinson Crusoe, the Iliad, The Hobbit, The Ugly Duckling, The Adventures of Tom Sawyer",
        "painting": "the Mona Lisa, The Starry Night, Guernica, The Scream, The Last Supper, Girl with a Pearl"
        " Earring, The Birth of Venus, the ceiling of the Sistine Chapel, Las Meninas, Sunflowers",
        "city": "London, Paris, Berlin, Vienna, Prague, Lisbon, Barcelona, Venice, Athens, Istanbul, Moscow,"
        " Stockholm, Dublin, Amsterdam, Brussels, New York, Chicago, Boston, San Francisco, Mexico City, Havana,"
        " Bogota, Buenos Aires, Santiago, Rio de Janeiro, Cape Town, Marrakesh, Dubai, Mumbai, Delhi, Bangkok,"
        " Singapore, Hong Kong, Shanghai, Beijing, Seoul, Kyoto, Melbourne",
        "substance": "gold, silver, copper, iron, steel, glass, paper, plastic, ice, salt, sugar, rubber, wax, chalk,"
        " sand, oil, coal, cotton, wool, leather, butter, chocolate, soap, concrete, air",
        "superlative": "largest, smallest, highest, longest, oldest, fastest, heaviest, deepest, most famous, most"
        " beautiful, most useful, strangest",
        "category": "animal, bird, fish, insect, river, mountain, lake, city, island, building, bridge, tree, flower,"
        " museum, train, ship, book, food, sport, colour, season, song, day of the week",
        "part": "eyes, teeth, legs, bones, ears, hearts, toes",
        "habit": "sleep so long, live in groups, build nests, hide their food, change colour, make noise at night,"
        " migrate, clean themselves, protect their young, find their way home",
        "small": "seconds, minutes, hours, days, weeks, months, grams, metres, centimetres, letters, people",
        "big": "minute, hour, day, week, month, year, kilogram, kilometre, century, alphabet, football team",
        "month": "January, February, March, April, May, June, July, August, September, October, November, December",
        "day": "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday",
        "season": "spring, summer, autumn, winter",
        "daytime": "morning, afternoon, evening, night",
        "event": "French Revolution, Industrial Revolution, First World War, Second World War, Cold War, American"
        " Civil War, Great Depression, Black Death, Moon landing, fall of the Berlin Wall, Space Race, Russian"
        " Revolution, Battle of Waterloo, discovery of America, Great Fire of London, invention of writing",
        "landmark": "the Eiffel Tower, the Colosseum, the Great Wall of China, the Taj Mahal, the Statue of Liberty,"
        " Big Ben, Machu Picchu, Stonehenge, the Parthenon, the Great Pyramid, the Golden Gate Bridge, the Sydney"
        " Opera House, Notre-Dame, the Alhambra, Mount Everest, the Grand Canyon, the Sahara, Niagara Falls, the"
        " Amazon River, the Panama Canal",
        "job": "teacher, doctor, nurse, baker, farmer, pilot, sailor, carpenter, plumber, painter, lawyer, engineer,"
        " architect, gardener, cook, waiter, firefighter, police officer, dentist, vet, librarian, journalist,"
        " photographer, musician, actor, writer, programmer, scientist, astronaut, mechanic, tailor, shepherd, judge,"
        " postman, bus driver, king, knight, wizard, clockmaker, fisherman",
        "organ": "brain, liver, stomach, lungs, skin, kidneys, eye, ear, nose, tongue, spine, heart and blood,"
        " pancreas, bladder, large intestine",
        "plant": "rose, tulip, sunflower, oak, pine, palm tree, apple tree, olive tree, cactus, fern, tomato, potato,"
        " carrot, onion, pumpkin, bean, strawberry, lemon tree, grape vine, mushroom, wheat plant, bamboo, orchid,"
        " daisy, cherry tree",
        "concept": "gravity, energy, friction, pressure, speed, temperature, a cell, a gene, an ecosystem, a food"
        " chain, an atom, a molecule, a chemical reaction, an acid, a magnet, an electric current, a volcano, a"
        " planet, a star, a galaxy, a fossil, a metaphor, a noun, a verb, an adverb, a synonym, a fraction, a"
        " percentage, an angle, a circle, an average, probability, a budget, a loan, supply and demand, a democracy,"
        " a republic, a constitution, a law, a tax, an algorithm, a variable, a database, a web page, a network, a"
        " virus, artificial intelligence, an operating system, a search engine, photosynthesis, evolution, erosion,"
        " condensation, evaporation, empathy, patience, courage, freedom, justice",
        "phenomenon": "a rainbow, an earthquake, thunder, the tide, an eclipse, fog, the change of the seasons, snow,"
        " rust, an echo, the boiling of water, the freezing of water, a sunset, hiccups, yawning, the falling of"
        " leaves, a tsunami, a tornado, static electricity, the floating of ships, the flight of birds, the ripening"
        " of fruit, the rising of bread, day and night",
        "pair": "a city and a village, a river and a canal, an ocean and a sea, a hill and a mountain, weather and"
        " climate, a fruit and a vegetable, a frog and a toad, a moth and a butterfly, a planet and a star, a cat and"
        " a dog, tea and coffee, a novel and a poem, a job and a hobby, a violin and a guitar, mass and weight, speed"
        " and velocity, bacteria and viruses, hardware and software, a list and a tuple, an email and a letter,"
        " trains and buses, cars and bicycles, summer and winter, a crocodile and an alligator, mammals and reptiles,"
        " solids and liquids, democracy and monarchy, a whale and a fish, butter and margarine, a museum and a"
        " gallery, working at home and in an office, books and films",
        "kind": "mammal, bird, fish, reptile, insect, pet, wild animal, plant eater, machine",
        "rare": "resilient, generous, ambiguous, fragile, reluctant, abundant, obsolete, inevitable, meticulous,"
        " transparent, spontaneous, diligent, humble, peculiar, vivid, tranquil, necessary, rhythm, neighbour,"
        " embarrass, separate, knowledge, bicycle, vocabulary, queue, candid, gloomy, sincere",
        "letter": "A, B, C, D, E, F, G, H, K, L, M, N, P, R, S, T, W",
        "rhyme": "cat, light, day, tree, moon, ball, rain, star, sea, night, king, cold, house, blue, snow",
        "count": "five, six, seven, eight, nine, ten, eleven, twelve, fifteen, twenty, thirty",
        "planet": "Mercury, Venus, Mars, Jupiter, Saturn, Uranus, Neptune, Earth",
        "colour": "red, blue, green, yellow, black, white, orange, purple, pink, brown, grey",
        "shape": "circle, square, triangle, star, heart",
        "learn": "swim, cook, read, dance, skate, play the piano, drive a car, write code, speak French, climb, sew,"
        " play chess, ski, sing, paint",
        "greeting": "Hello!; Good morning!; Good evening!; Hi there!; Good afternoon!; Hello, nice to meet you.;"
        " Excuse me.",
        "line": "The little boat sails on the calm sea.; Every good day begins with a good breakfast.; The green"
        " train leaves at seven.; I will finish my work on time.; Five small frogs jump into the pond.; The cat"
        " sleeps on the warm stone.; We plant trees for our children.; I must not forget my keys.; Fresh bread smells"
        " wonderful.; The wind moves the tall grass.; Reading opens many doors.; My brother plays the drum.; The"
        " clock on the wall is slow.; A friend in need is a friend indeed.; Practice makes perfect.; The server is"
        " ready.; Memory is limited.; Small steps lead far.; Slow and steady wins the race.; The sun rises in the"
        " east.; Please close the door quietly.; Two birds sang in the old oak.; Silver moonlight fell on the lake.;"
        " Nobody likes cold soup.",
        "rude": "Sit down.; Be quiet.; Move your car.; Send me the file.; Give me the keys now.; Close the window.; I"
        " want a coffee.; You are late again.; Pay the bill today.; Stop talking.; Answer my email.; Wait outside.;"
        " Your work is bad.; Hurry up.; Bring the menu.; Go away, I am busy.; Tell me your name.; Fix this today.;"
        " Turn off the music.; Call me back now.; Help me with this box.; Do it again.",
        "present": "He reads a book in the evening.; They play football after school.; I cook dinner for my family.;"
        " The dog runs in the garden.; We travel by train.; My sister sings in the choir.; You write a letter to your"
        " friend.; The children swim in the lake.; She drinks tea every morning.; The bird builds a nest.; My father"
        " drives to work.; The teacher asks a question.; I clean my room on Saturday.; The cat catches a mouse.; We"
        " watch a film at home.; It rains in the mountains.; The baker makes fresh bread.; He forgets his umbrella.;"
        " The students learn a new song.; She opens the window.; They buy apples at the market.; The boat crosses the"
        " river.",
        "mistake": "She go to school yesterday.; He don't like apples.; They was very happy.; I has two brother.; We"
        " is going to the park.; The childs play in the garden.; Me and him is friends.; Their is a cat on the roof.;"
        " I buyed a new book.; He runned very fast.; She have a red car.; The dog eat it's food.; You was right.; I"
        " can to swim.; It are a nice day.; This apples is sweet.; Where does he lives?; He speak english good.",
        "verb": "go, see, eat, write, take, give, run, swim, sing, bring, buy, think, know, find, make, sleep, break,"
        " drive, fly, begin, draw, teach, walk, play",
        "occasion": "a birthday party, a wedding, a picnic, a school concert, a barbecue, a housewarming party, a"
        " farewell dinner, a book club, a graduation, a chess evening, a garden party, New Year's Eve, a football"
        " match, a baby shower, a film night",
        "excuse": "I cannot come tomorrow, I am ill today, I missed the train, I lost the book, I will arrive an hour"
        " later, the package has not arrived, the meeting is cancelled, I forgot the appointment, I need more time, I"
        " have found the keys, I will be on holiday next week, the lift does not work, I broke a glass, the report is"
        " ready, I changed my phone number, I cannot pay this month, the dog ate my homework",
        "ingredient": "eggs, rice, potatoes, tomatoes, lentils, chickpeas, carrots, onions, garlic, spinach,"
        " mushrooms, chicken, tuna, cheese, yoghurt, milk, flour, oats, apples, bananas, lemons, strawberries,"
        " peanuts, honey, chocolate, pasta, beans, cabbage, corn, bread",
        "numeric": "adds three numbers, subtracts two numbers, multiplies two numbers, divides two numbers, returns"
        " the square of a number, returns the larger of two numbers, returns the absolute value of a number, returns"
        " the area of a circle, returns the area of a rectangle, adds all numbers of a list, rounds a number, doubles"
        " a number, returns the average of three numbers, counts down from a number, returns the remainder of a"
        " division",
        "predicate": "a number is odd, a number is positive, a number is a multiple of three, a list is empty, a word"
        " is longer than five letters, a year is a leap year, two words are equal, a letter is a vowel, a number is"
        " between 1 and 10, a text holds a word, a list is sorted, a person is an adult",
        "programming": "loop, function, list, dictionary, variable, string, class, module, comment, tuple, set,"
        " condition, return value, parameter, recursion, exception",
        "item": "apples, pencils, books, coins, eggs, stamps, oranges, balls, tickets, cookies, flowers, marbles,"
        " chairs, bottles",
        "opinion": "I would buy it again, it broke after a week, it does what it should, nobody answered my calls,"
        " the colour is wonderful, it was too expensive, I gave it to my neighbour, it came on time, I sent it back,"
        " my children love it",
        "opinion_sentence": "The pizza was cold when it came.; I loved the music and the lights.; The room was small"
        " but clean.; The bag is fine, it holds my things.; The staff were kind and quick.; The screen has a scratch"
        " and nobody cares.; It is the best book that I have read this year.; The bus was late again.; The cake was"
        " dry.; The garden is a quiet, lovely place.; The app is slow and full of advertisements.; The lamp gives"
        " light.; The teacher explains everything twice.; My order never came.; The view from the window is"
        " wonderful.; The shirt is too big.; Great price, good quality.; The concert was neither good nor bad.; I"
        " waited for two hours.; The sauce was delicious.",
        "phrase": "good morning; good night; thank you very much; see you tomorrow; where is the station; how much is"
        " it; my name is Anna; I am hungry; I love this city; the house is white; happy birthday; excuse me; I do not"
        " understand; the water is cold; open the door; my brother is tall; we are friends; it is raining; a glass of"
        " water, please; have a nice day; the book is on the table; what time is it; I live in a small town",
        "proverb": "Better late than never; Actions speak louder than words; Many hands make light work; The early"
        " bird catches the worm; Do not judge a book by its cover; Where there is smoke, there is fire; Birds of a"
        " feather flock together; Rome was not built in a day; Two heads are better than one; Look before you leap;"
        " Every cloud has a silver lining; Too many cooks spoil the broth; All that glitters is not gold; Honesty is"
        " the best policy; You cannot teach an old dog new tricks",
    }.items()
}
