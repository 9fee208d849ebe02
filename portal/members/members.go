// Package members is the pages that every member uses: logging in, the start page, her own account and her groups.
package members

import (
	"embed"
	"slices"

	"allotment/api"
	"allotment/portal/web"
)

//go:embed pages messages
var files embed.FS

// passkeyBody is how large what a browser says of a passkey may be, in bytes.
const passkeyBody = 32 << 10

// Section is the pages of this package.
func Section() web.Section {
	return web.Section{
		Name:  "members",
		Files: files,
		Menu: []web.Link{
			{Path: "/portal/", Key: "menu.home", Access: api.Member},
			{Path: "/portal/groups", Key: "menu.groups", Access: api.Member},
			{Path: "/portal/me", Key: "menu.me", Access: api.Member},
			{Path: "/portal/me/login", Key: "menu.login", Access: api.Member},
			{Path: "/portal/devices", Key: "menu.devices", Access: api.Member},
			{Path: "/portal/me/apps", Key: "menu.apps", Access: api.Member},
		},
		Routes: slices.Concat(loginRoutes(), accountRoutes(), memberRoutes(), registerRoutes(), decideRoutes()),
	}
}

func public(method, path, does string, handle func(*web.Request) error) web.Route {
	return web.Route{Method: method, Path: "/portal" + path, Access: api.Public, Does: does, Handle: handle, Body: passkeyBody}
}

func member(method, path, does string, handle func(*web.Request) error) web.Route {
	return web.Route{Method: method, Path: "/portal" + path, Access: api.Member, Does: does, Handle: handle, Body: passkeyBody}
}

func fresh(route web.Route) web.Route {
	route.Fresh = true
	return route
}

func loginRoutes() []web.Route {
	return []web.Route{
		public("GET", "/login", "log in", showLogin),
		public("POST", "/login", "log in by password", byPassword),
		public("POST", "/login/code", "a code after the password", byCode),
		public("POST", "/login/passkey/begin", "what a passkey is to sign", beginPasskeyLogin),
		public("POST", "/login/passkey", "log in by passkey", byPasskey),
		public("GET", "/login/forgotten", "get in without the password", showForgotten),
		public("POST", "/login/forgotten", "log in by a printed or an officer's code", recoverLogin),
		public("POST", "/login/forgotten/mail", "ask for a link for a new password", sendReset),
		public("GET", "/login/forgotten/sent", "look into your mail for the link", resetSent),
		public("GET", "/login/reset", "a form for a new password, by a link", showReset),
		public("POST", "/login/reset", "set a new password, by a link", reset),
		public("GET", "/address", "a button that confirms a member's mail address", showAddress),
		public("POST", "/address", "confirm a member's mail address", confirmAddress),
		member("GET", "/login/again", "log in once more before something dangerous", showAgain),
		member("POST", "/login/again", "log in once more by password", again),
		member("POST", "/logout", "log out", logout),
	}
}

func accountRoutes() []web.Route {
	return []web.Route{
		member("GET", "/me", "my account", showMe),
		member("POST", "/me", "change what is known of me", changeMe),
		member("POST", "/me/confirm", "send a link to confirm my mail address", sendConfirm),
		member("GET", "/me/login", "how I log in, and where I am logged in", showMethods),
		fresh(member("GET", "/me/password", "a form for a new password", showPassword)),
		fresh(member("POST", "/me/password", "change my password", changePassword)),
		fresh(member("GET", "/me/passkeys", "a form for a new passkey", showPasskey)),
		fresh(member("POST", "/me/passkeys/begin", "what a new passkey is to sign", beginPasskey)),
		fresh(member("POST", "/me/passkeys", "add a passkey", addPasskey)),
		fresh(member("POST", "/me/passkeys/{id}/remove", "remove a passkey", removePasskey)),
		fresh(member("GET", "/me/totp", "a key for an app that makes codes", showTOTP)),
		fresh(member("POST", "/me/totp", "turn codes on", confirmTOTP)),
		fresh(member("POST", "/me/totp/remove", "turn codes off", removeTOTP)),
		fresh(member("POST", "/me/codes", "make new codes to print", makeCodes)),
		member("POST", "/me/sessions/{id}/end", "log out another browser", endSession),
		member("POST", "/me/sessions/others/end", "log out all other browsers", endOthers),
		member("GET", "/me/apps", "passwords for apps", showApps),
		fresh(member("POST", "/me/apps", "make a password for an app", addApp)),
		member("POST", "/me/apps/{id}/remove", "remove a password for an app", removeApp),
	}
}

func memberRoutes() []web.Route {
	return []web.Route{
		member("GET", "/{$}", "the start page: what the member may use", home),
		member("GET", "/groups", "groups to join and leave", showGroups),
		member("POST", "/groups/{group}/leave", "leave a group", leaveGroup),
		member("POST", "/groups/{group}/ask", "ask to join a group", askGroup),
		member("POST", "/join", "use an invitation as a member", join),
	}
}

func registerRoutes() []web.Route {
	return []web.Route{
		public("GET", "/register", "a form for newcomers", showRegister),
		public("POST", "/register", "ask to become a member", register),
		public("GET", "/register/sent", "look into your mail", sent),
		public("GET", "/register/confirm", "a button that confirms a mail address", showConfirm),
		public("POST", "/register/confirm", "confirm a mail address", confirm),
		public("GET", "/register/confirmed", "what happens next", confirmed),
		public("GET", "/setup", "a form for the first password", showSetUp),
		public("POST", "/setup", "set the first password", setUp),
		public("POST", "/setup/passkey/begin", "what a newcomer's passkey is to sign", beginSetUpPasskey),
		public("POST", "/setup/passkey", "have a passkey instead of the first password", setUpPasskey),
	}
}

// decideRoutes are of those who decide about groups; which groups is for the handlers to look at.
func decideRoutes() []web.Route {
	return []web.Route{
		member("GET", "/requests", "who wants to join groups that I decide about", showRequests),
		member("GET", "/requests/{id}", "one who wants to join", showRequest),
		member("POST", "/requests/{id}", "say yes or no", decide),
		member("GET", "/invitations", "invitations to groups that I decide about", showInvitations),
		member("POST", "/invitations", "invite", invite),
		member("GET", "/invitations/{token}", "a poster with an invitation", showPoster),
		member("GET", "/invitations/{token}/qr.svg", "the picture on the poster", posterPicture),
		member("POST", "/invitations/{token}/withdraw", "end an invitation", withdraw),
	}
}
