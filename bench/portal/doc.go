// Package portal measures the portal and the gateway as programs, with the directory's own slapd behind them: whether a
// thousand logins succeed, how long one takes, and what memory the two programs have then. It is a test; see make bench-portal.
package portal
