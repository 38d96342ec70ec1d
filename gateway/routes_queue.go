package gateway

// queueRoutes are those of the two lines. A ticket says itself which line it is for.
var queueRoutes = []route{
	{
		method: "POST", path: "/v1/queue", name: "join-queue", tag: "storefront", roles: toSell,
		summary: "Join the waiting room of a sale",
		doc: "One ticket a customer: joining again gives the same. Those who join before the sale opens are drawn " +
			"for their order at the opening; whoever comes later stands behind them, first come first served.",
		body:    JoinRequest{},
		answers: []answer{{status: 202, doc: "The ticket.", body: Ticket{}, headers: []string{headerClearance}}},
		codes: with(away, codeUnknownSale, codeSaleNotOpen, codeSaleEnded, codeQueueFull, codeCustomerMismatch,
			codeChallengeRequired, codeRateLimited),
		handle: (*Gateway).join,
	},
	{
		method: "GET", path: "/v1/queue/{ticket}", name: "read-ticket", tag: "storefront", roles: toSell,
		summary: "Read where a ticket stands",
		doc: "Reading is the heartbeat of whoever waits. poll_after_ms says when to come back; coming earlier is " +
			"answered all the same.",
		answers: []answer{{status: 200, doc: "The ticket.", body: Ticket{}}},
		codes:   with(away, codeUnknownTicket, codeUnknownSale, codeTicketExpired),
		handle:  (*Gateway).ticket,
	},
	{
		method: "DELETE", path: "/v1/queue/{ticket}", name: "leave-queue", tag: "storefront", roles: toSell,
		summary: "Leave the line",
		doc:     "The place is gone for good. Leaving twice changes nothing more.",
		answers: []answer{{status: 200, doc: "The ticket, left.", body: Ticket{}}},
		codes:   with(away, codeUnknownTicket, codeUnknownSale, codeTicketExpired),
		handle:  (*Gateway).leaveLine,
	},
}
