package gateway

import "flashgate/sale"

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
		doc: "The place is gone for good, and what was offered for it. Leaving twice changes nothing more; what is " +
			"confirmed is cancelled instead.",
		answers: []answer{{status: 200, doc: "The ticket, left.", body: Ticket{}}},
		codes:   with(away, codeUnknownTicket, codeUnknownSale, codeTicketExpired, codeAlreadyConfirmed),
		handle:  (*Gateway).leaveLine,
	},
	{
		method: "GET", path: "/v1/sales/{sale}/draw", name: "draw", tag: "storefront",
		summary: "Check the draw of a waiting room",
		doc: "Before the opening the commitment to the seed, after it the seed. With a ticket in the query, " +
			"where the draw put it: anyone can compute the same.",
		query:   []param{{"ticket", "A ticket of this waiting room.", false, checkTicket}},
		answers: []answer{{status: 200, doc: "The draw.", body: Draw{}}},
		codes:   with(away, codeUnknownSale, codeUnknownTicket, codeTicketExpired, codeInvalidRequest),
		handle:  (*Gateway).draw,
	},
	{
		method: "GET", path: "/line/{sale}", name: "line-page", tag: "storefront",
		summary: "A page that shows where a ticket stands",
		doc: "For shoppers: it needs no scripts and no credential, and may be shown in a frame. The ticket in " +
			"the query is the permission.",
		query:   []param{{"ticket", "A ticket of this sale.", false, checkTicket}},
		answers: []answer{{status: 200, doc: "The page.", content: "text/html"}},
		codes:   with(away, codeUnknownSale, codeInvalidRequest),
		handle:  (*Gateway).linePage,
	},
	{
		method: "POST", path: adminSales + "/{sale}/room", name: "set-room", tag: "sales", roles: toRun,
		summary: "Pause, drain or speed up a waiting room",
		doc:     "Makes a version of the sale. What is left out stays as it is; repeated, it changes nothing.",
		body:    RoomRequest{}, replays: true,
		answers: []answer{
			{status: 200, doc: "Done, and every gateway knows it.", body: sale.Version{}, headers: []string{"ETag"}},
			{
				status: 202, doc: "Stored, and not applied in time: send it again.", body: Applying{},
				headers: []string{"ETag"},
			},
		},
		codes:  []code{codeUnknownSale, codeSaleEnded, codeVersionMismatch, codeUnavailable},
		handle: (*Gateway).setRoom,
	},
}
