// Package challenge asks for proof that a person is at the other end, and judges it. It owns the
// calls of the providers that check people.
//
// service.go makes a challenge for a customer of a sale, judges the answer and gives a clearance,
// which spares the customer the next challenge for a while. pow.go is the proof of work, built in:
// it needs nobody else, so it is also what everybody falls back to. site.go asks Turnstile, hCaptcha
// or reCAPTCHA through a breaker, and verdict.go judges what they say. token.go is what is sealed
// into a token and a clearance. reject.go lists why an answer is refused. suspicion.go watches who
// comes, so that only the suspicious need be asked and the more suspicious work longer. options.go
// has every limit. page.go holds the page and the script that solve a challenge in a browser.
package challenge
