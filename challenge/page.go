package challenge

import "embed"

// Page holds page/index.html with its script and style, and page/challenge.js, which solves
// challenges and can be used by any page. They need no build, and no inline script or style.
//
//go:embed page
var Page embed.FS

// PagePolicy is the strictest Content-Security-Policy with which the page works.
const PagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
