from pathlib import Path

import pytest

from engines.local.answers import OUT_OF_SCOPE, SEPARATOR, intent_names, load_answers, recognised

# BANKING77's own list; the data itself is not part of the tree.
BANKING77 = (
    "Refund_not_showing_up activate_my_card age_limit apple_pay_or_google_pay atm_support"
    " automatic_top_up balance_not_updated_after_bank_transfer"
    " balance_not_updated_after_cheque_or_cash_deposit beneficiary_not_allowed cancel_transfer"
    " card_about_to_expire card_acceptance card_arrival card_delivery_estimate card_linking"
    " card_not_working card_payment_fee_charged card_payment_not_recognised"
    " card_payment_wrong_exchange_rate card_swallowed cash_withdrawal_charge"
    " cash_withdrawal_not_recognised change_pin compromised_card contactless_not_working"
    " country_support declined_card_payment declined_cash_withdrawal declined_transfer"
    " direct_debit_payment_not_recognised disposable_card_limits edit_personal_details"
    " exchange_charge exchange_rate exchange_via_app extra_charge_on_statement failed_transfer"
    " fiat_currency_support get_disposable_virtual_card get_physical_card getting_spare_card"
    " getting_virtual_card lost_or_stolen_card lost_or_stolen_phone order_physical_card"
    " passcode_forgotten pending_card_payment pending_cash_withdrawal pending_top_up"
    " pending_transfer pin_blocked receiving_money request_refund reverted_card_payment?"
    " supported_cards_and_currencies terminate_account top_up_by_bank_transfer_charge"
    " top_up_by_card_charge top_up_by_cash_or_cheque top_up_failed top_up_limits top_up_reverted"
    " topping_up_by_card transaction_charged_twice transfer_fee_charged transfer_into_account"
    " transfer_not_received_by_recipient transfer_timing unable_to_verify_identity"
    " verify_my_identity verify_source_of_funds verify_top_up virtual_card_not_working"
    " visa_or_mastercard why_verify_identity wrong_amount_of_cash_received"
    " wrong_exchange_rate_for_cash_withdrawal"
)


def test_every_intent_has_an_answer() -> None:
    assert set(load_answers()) == {*BANKING77.split(), OUT_OF_SCOPE}
    assert len(load_answers()) == 78


def test_the_first_words_name_one_intent() -> None:
    answers = load_answers()
    names = intent_names(answers)
    assert len(names) == len(answers)
    for intent, text in answers.items():
        assert recognised(text, names) == intent


def test_no_name_begins_another() -> None:
    starts = [name + SEPARATOR for name in intent_names(load_answers())]
    for start in starts:
        assert [other for other in starts if other.startswith(start)] == [start]


@pytest.mark.parametrize("text", load_answers().values())
def test_an_answer_is_one_useful_sentence(text: str) -> None:
    assert 12 <= len(text.split()) <= 26
    assert text.count(SEPARATOR) == 1
    assert text.endswith(".")
    assert text.isascii()
    assert ". " not in text


def test_an_unfinished_or_unknown_start_names_nothing() -> None:
    names = intent_names(load_answers())
    assert recognised("Card arr", names) is None
    assert recognised("Weather: sunny.", names) is None
    assert recognised("", names) is None


def test_two_answers_that_start_alike_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.yaml"
    path.write_text('one: "Card: yes."\ntwo: "Card: no."\n')
    with pytest.raises(ValueError, match=r"answers\.yaml: two: starts like one: 'Card'"):
        load_answers(path)


def test_an_answer_that_names_no_intent_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.yaml"
    path.write_text('one: "Just wait."\n')
    with pytest.raises(ValueError, match=r"answers\.yaml: one: must start with words"):
        load_answers(path)
