package members

import (
	"errors"
	"net/http"
	"slices"

	"allotment/portal/directory"
	"allotment/portal/onboard"
	"allotment/portal/qr"
	"allotment/portal/web"
)

// registerPage is what page register shows.
type registerPage struct {
	Groups     []web.Option
	Invitation *onboard.Invitation
	Title      string // of the group that the invitation is for
	Form       string // what says when the form was made
	Fits       bool   // the visitor is a member, and the invitation is hers
}

func showRegister(r *web.Request) error { return renderRegister(r, r.Query("invitation")) }

func renderRegister(r *web.Request, invitation string) error {
	groups, err := r.Directory.Groups(r.Context())
	if err != nil {
		return err
	}
	page := registerPage{Form: r.Onboard.NewForm(), Groups: groupOptions(r, groups)}
	i, err := r.Onboard.Invitation(invitation)
	switch {
	case err == nil:
		page.Invitation, page.Title = &i, groupTitle(r, groups, i.Group)
		if r.Form.Value("mail") == "" {
			r.Form.Set("mail", i.Mail)
		}
		r.Form.Set("group", i.Group)
	case !errors.Is(err, onboard.ErrLink):
		return err
	case invitation != "" && r.Form.OK():
		r.Form.Fail("", "register.late")
		r.Status = http.StatusGone
	}
	return r.Render("register", page)
}

// groupOptions are groups to choose from. Nobody becomes an officer by asking.
func groupOptions(r *web.Request, groups []directory.Group) []web.Option {
	options := []web.Option{{Value: "", Label: "–"}}
	for _, g := range groups {
		if g.Name == officers {
			continue
		}
		label := r.GroupTitle(g)
		if g.About != "" {
			label += " – " + g.About
		}
		options = append(options, web.Option{Value: g.Name, Label: label})
	}
	return options
}

// officers is the group of those who run the box.
const officers = "officers"

func groupTitle(r *web.Request, groups []directory.Group, name string) string {
	for _, g := range groups {
		if g.Name == name {
			return r.GroupTitle(g)
		}
	}
	return name
}

func register(r *web.Request) error {
	f := r.Form
	request := onboard.Request{Given: f.Required("given", web.Line), Family: f.Text("family", web.Line), Mail: f.Mail("mail"),
		Group: f.Required("group", 63), Language: r.Language, Text: f.Text("text", 1000), Invitation: f.Value("invitation"),
		Form: f.Value("form"), Trap: f.Value("website"), Address: r.Client()}
	if request.Mail == "" && f.Error("mail") == "" {
		f.Fail("mail", "form.required")
	}
	if i, err := r.Onboard.Invitation(request.Invitation); request.Group == officers && (err != nil || i.Group != officers) {
		f.Fail("group", "register.nogroup")
	}
	if f.OK() {
		if err := takeOnboard(r, r.Onboard.Register(r.Context(), request)); err != nil {
			return err
		}
	}
	if !f.OK() {
		return renderRegister(r, request.Invitation)
	}
	return r.Redirect("/portal/register/sent")
}

// takeOnboard notes errors of package onboard, and returns others.
func takeOnboard(r *web.Request, err error) error {
	for _, known := range []struct {
		err        error
		field, key string
		status     int
	}{
		{onboard.ErrForm, "", "register.again", 0}, {onboard.ErrBusy, "", "register.busy", http.StatusTooManyRequests},
		{onboard.ErrGroup, "group", "register.nogroup", 0}, {onboard.ErrMember, "", "register.member", http.StatusConflict},
		{onboard.ErrDecided, "", "requests.decided", http.StatusConflict}, {onboard.ErrLink, "", "register.late", http.StatusGone},
		{directory.ErrText, "text", "form.characters", 0}, {directory.ErrMail, "mail", "form.mail", 0},
	} {
		if errors.Is(err, known.err) {
			r.Status = known.status
			r.Form.Fail(known.field, known.key)
			return nil
		}
	}
	switch {
	case errors.Is(err, onboard.ErrForbidden):
		return web.ErrForbidden
	case errors.Is(err, onboard.ErrNotFound):
		return web.ErrNotFound
	}
	return err
}

func sent(r *web.Request) error { return r.Render("sent", nil) }

// confirmPage is what page confirm shows.
type confirmPage struct {
	Token, Name, Group string
}

// showConfirm has a button: programs that look through mail open links, but press nothing.
func showConfirm(r *web.Request) error {
	token := r.Query("token")
	a, err := r.Onboard.Look(token)
	if err != nil {
		return lateLink(err)
	}
	groups, err := r.Directory.Groups(r.Context())
	if err != nil {
		return err
	}
	return r.Render("confirm", confirmPage{token, a.FullName(), groupTitle(r, groups, a.Group)})
}

func lateLink(err error) error {
	if errors.Is(err, onboard.ErrLink) {
		return web.Fail(http.StatusGone, "register.late")
	}
	return err
}

func confirm(r *web.Request) error {
	if _, err := r.Onboard.Confirm(r.Context(), r.Form.Value("token")); err != nil {
		return lateLink(err)
	}
	return r.Redirect("/portal/register/confirmed")
}

func confirmed(r *web.Request) error { return r.Render("confirmed", nil) }

// join lets a member into the group that she was invited to by name, or asks for her.
func join(r *web.Request) error {
	invitation := r.Form.Value("invitation")
	err := r.Onboard.Join(r.Context(), r.Person.Name, invitation)
	if errors.Is(err, onboard.ErrForbidden) { // a poster: those who decide are asked
		i, lookErr := r.Onboard.Invitation(invitation)
		if lookErr != nil {
			return lateLink(lookErr)
		}
		return ask(r, i.Group)
	}
	if err != nil {
		return lateLink(err)
	}
	return r.Done("/portal/groups", "mygroups.joined")
}

func askGroup(r *web.Request) error {
	if r.Path("group") == officers {
		return web.ErrForbidden
	}
	return ask(r, r.Path("group"))
}

func ask(r *web.Request, group string) error {
	if err := takeOnboard(r, r.Onboard.JoinAsk(r.Context(), r.Person.Name, group, r.Form.Text("text", 1000))); err != nil {
		return err
	}
	if !r.Form.OK() {
		return showGroups(r)
	}
	return r.Done("/portal/groups", "mygroups.asked")
}

// requestsPage is what page requests shows.
type requestsPage struct {
	Pending []request
	Officer bool
	Waiting []onboard.Application // those who have not used the link for their first password
}

// request is somebody who wants to join a group.
type request struct {
	*onboard.Application
	Title string // of the group
	Known string // who has the same address
}

func showRequests(r *web.Request) error {
	pending, err := r.Onboard.Pending(r.Context(), r.Person.Name)
	if err != nil {
		return err
	}
	groups, err := r.Directory.Groups(r.Context())
	if err != nil {
		return err
	}
	page := requestsPage{Officer: r.Officer}
	for _, a := range pending {
		page.Pending = append(page.Pending, request{&a, groupTitle(r, groups, a.Group), a.Known})
	}
	if r.Officer {
		if page.Waiting, err = r.Onboard.Unfinished(); err != nil {
			return err
		}
	}
	return r.Render("requests", page)
}

// requestPage is what page request shows.
type requestPage struct {
	Request request
	Open    bool
	Others  []web.Option // groups that it can be passed on to
}

func showRequest(r *web.Request) error {
	a, err := r.Onboard.Find(r.Path("id"))
	if err != nil {
		return takeOnboard(r, err)
	}
	return renderRequest(r, a)
}

func renderRequest(r *web.Request, a onboard.Application) error {
	may, err := r.Onboard.MayDecide(r.Context(), r.Person.Name, a.Group)
	if err != nil {
		return err
	}
	if !may {
		return web.ErrForbidden
	}
	groups, err := r.Directory.Groups(r.Context())
	if err != nil {
		return err
	}
	page := requestPage{Request: request{&a, groupTitle(r, groups, a.Group), a.Known}, Open: a.State == onboard.Waiting,
		Others: slices.DeleteFunc(groupOptions(r, groups), func(o web.Option) bool { return o.Value == a.Group })}
	return r.Render("request", page)
}

func decide(r *web.Request) error {
	id := r.Path("id")
	answer, reason := r.Form.Choice("answer", "yes", "no", "move"), r.Form.Text("reason", 1000)
	a, err := r.Onboard.Find(id)
	if err == nil && r.Form.OK() {
		if answer == "move" {
			err = r.Onboard.Move(r.Context(), id, r.Person.Name, r.Form.Value("group"))
		} else {
			err = r.Onboard.Decide(r.Context(), id, r.Person.Name, answer == "yes", reason)
		}
	}
	if err := takeOnboard(r, err); err != nil {
		return err
	}
	if !r.Form.OK() {
		return renderRequest(r, a)
	}
	return r.Done("/portal/requests", "requests."+answer, "name", a.FullName())
}

// invitationsPage is what page invitations shows.
type invitationsPage struct {
	Groups []web.Option
	Open   []invitation
	New    string // link just made
}

type invitation struct {
	onboard.Invitation
	Title, Link string
}

func showInvitations(r *web.Request) error { return renderInvitations(r) }

// decidesAbout are the groups that the visitor may invite to: her own, and all of them for officers.
func decidesAbout(r *web.Request) ([]directory.Group, error) {
	if r.Officer {
		return r.Directory.Groups(r.Context())
	}
	return r.Directory.GroupsOwnedBy(r.Context(), r.Person.Name)
}

func renderInvitations(r *web.Request) error {
	groups, err := decidesAbout(r)
	if err != nil {
		return err
	}
	open, err := r.Onboard.Invitations(r.Context(), r.Person.Name)
	if err != nil {
		return err
	}
	page := invitationsPage{Groups: groupOptions(r, groups)}
	for _, i := range open {
		page.Open = append(page.Open, invitation{i, groupTitle(r, groups, i.Group), r.Onboard.InvitationLink(i.Token)})
	}
	return r.Render("invitations", page)
}

// The days that an invitation can be good for, and how often a link can be used at most.
const (
	mostDays = 366
	mostUses = 1000
)

func invite(r *web.Request) error {
	f := r.Form
	i := onboard.Invitation{Group: f.Required("group", 63), By: r.Person.Name, Mail: f.Mail("mail"), Name: f.Text("name", web.Line)}
	i.Until = r.Now.AddDate(0, 0, f.Number("days", 1, mostDays))
	if f.Value("uses") != "" {
		i.Uses = f.Number("uses", 1, mostUses)
	}
	if f.OK() {
		_, err := r.Onboard.Invite(r.Context(), i)
		if err := takeOnboard(r, err); err != nil {
			return err
		}
	}
	if !f.OK() {
		return renderInvitations(r)
	}
	if i.Mail != "" {
		return r.Done("/portal/invitations", "invitations.sent", "mail", i.Mail)
	}
	return r.Done("/portal/invitations", "invitations.made")
}

func withdraw(r *web.Request) error {
	if err := takeOnboard(r, r.Onboard.Withdraw(r.Context(), r.Person.Name, r.Path("token"))); err != nil {
		return err
	}
	if !r.Form.OK() {
		return renderInvitations(r)
	}
	return r.Done("/portal/invitations", "invitations.withdrawn")
}

// findInvitation is one that the visitor may see.
func findInvitation(r *web.Request) (invitation, error) {
	i, err := r.Onboard.Invitation(r.Path("token"))
	if err != nil {
		return invitation{}, lateLink(err)
	}
	may, err := r.Onboard.MayDecide(r.Context(), r.Person.Name, i.Group)
	if err != nil {
		return invitation{}, err
	}
	if !may {
		return invitation{}, web.ErrForbidden
	}
	groups, err := r.Directory.Groups(r.Context())
	return invitation{i, groupTitle(r, groups, i.Group), r.Onboard.InvitationLink(i.Token)}, err
}

func showPoster(r *web.Request) error {
	i, err := findInvitation(r)
	if err != nil {
		return err
	}
	return r.Render("poster", i)
}

func posterPicture(r *web.Request) error {
	i, err := findInvitation(r)
	if err != nil {
		return err
	}
	b, err := qr.SVG(i.Link)
	if err != nil {
		return err
	}
	r.W.Header().Set("Content-Type", "image/svg+xml")
	_, err = r.W.Write(b)
	return err
}
