"""What the demo asks: questions of bank customers from BANKING77 (CC BY 4.0), and two others.

Each wave is asked at once and waits for the one before. A question that was asked before comes from
the cache; one that is asked twice in a wave is answered once for both. A few were chosen because
the small model is not sure of them.
"""

CHAT, EXPERT = "support-chat", "support-expert"

WAVES: tuple[tuple[tuple[str, str], ...], ...] = (
    (
        (CHAT, "I ordered a card but it has not arrived. Help please!"),
        (CHAT, "My card was declined in a shop"),
        (CHAT, "How do I retrieve my passcode?"),
    ),
    (
        (CHAT, "I ordered a card but it has not arrived. Help please!"),
        (EXPERT, "Someone I don't know has used my card without permission."),
        (CHAT, "Is there an exchange fee?"),
    ),
    (
        (EXPERT, "There is a direct debit that's not mine."),
        (CHAT, 'What do I do if an ATM "stole" my card?'),
        (CHAT, "When getting my ID checked, what are the steps involved?"),
    ),
    (
        (CHAT, "My phone was stolen yesterday.  What should I do?"),
        (CHAT, "My phone was stolen yesterday.  What should I do?"),
        (CHAT, "What is the weather in Lisbon?"),
    ),
    (
        (EXPERT, "My card payment was reverted.  Why?"),
        (CHAT, "Why won't my card show up on the app?"),
        (CHAT, "My card was declined in a shop"),
    ),
    (
        (EXPERT, "Someone I don't know has used my card without permission."),
        (CHAT, "Can you recommend a good pasta recipe?"),
        (CHAT, "there's a delay in my top-up"),
    ),
    (
        (CHAT, "Is there an exchange fee?"),
        (EXPERT, "Why was the exchange rate wrong when I got cash"),
    ),
)
