"""What the demo asks: questions of bank customers from BANKING77 (CC BY 4.0), and two others.

Each wave is asked at once and waits for the one before. A question that was asked before comes from
the cache; one that is asked twice in a wave is answered once for both.
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
        (CHAT, "How do I verify my identity?"),
    ),
    (
        (CHAT, "My phone was stolen yesterday.  What should I do?"),
        (CHAT, "My phone was stolen yesterday.  What should I do?"),
        (CHAT, "What is the weather in Lisbon?"),
    ),
    (
        (EXPERT, "My card payment was reverted.  Why?"),
        (CHAT, "Can I get my salary through this?"),
        (CHAT, "My card was declined in a shop"),
    ),
    (
        (EXPERT, "Someone I don't know has used my card without permission."),
        (CHAT, "Can you recommend a good pasta recipe?"),
        (CHAT, "How long for money transfer to show?"),
    ),
    (
        (CHAT, "Is there an exchange fee?"),
        (EXPERT, "Why was the exchange rate wrong when I got cash"),
    ),
)
