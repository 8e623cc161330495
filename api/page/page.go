// Package page holds the web page of the server and what it is made of.
package page

import "embed"

// Files are what the server shows at / (index.html) and below /page/.
//
//go:embed index.html
var Files embed.FS
